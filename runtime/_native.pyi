# Generated: python tests/native/test_stub.py
# ruff: noqa
"""
The C++ kernels of the runtime: C-contiguous NumPy arrays in and out, the GIL released while they compute.
"""

import os
from typing import Annotated

import numpy
from numpy.typing import NDArray

def log_power(
    samples: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    num_mels: int = 128,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
    """
    Log10 mel power of whole frames of 16 kHz audio, before the spectrograms' clamp and scale.

    samples: [N], N >= 400. Returns [num_mels, (N - 400) // 160 + 1], 100 frames/s.
    Raises ValueError for a shorter stretch, a sample that is not finite, or num_mels outside 1 .. 201.
    Source: SEMANTICS.md 1.5.
    """

def whisper_log_mel(
    pcm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    num_mels: int = 128,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
    """
    Log-mel of 16 kHz audio as Whisper's extractor computes it after zero-padding to 300 s.

    pcm: [N] samples, 1 <= N <= 4800000. Returns [num_mels, ceil(N / 160)], 100 frames/s: the valid frames only.
    Raises ValueError for another length, a sample that is not finite, or num_mels outside 1 .. 201.
    Source: SEMANTICS.md 1.5.
    """

def reflect_log_mel(
    pcm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    num_mels: int = 128,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
    """
    Log-mel of 16 kHz audio reflected at both its ends: the input of the S3 speech tokenizer.

    pcm: [N] samples, N >= 201. Returns [num_mels, N // 160], 100 frames/s.
    Raises ValueError for a shorter pcm, a sample that is not finite, or num_mels outside 1 .. 201.
    Source: SEMANTICS.md 9.
    """

class EmbeddingTable:
    """
    Rows of a [rows, cols] table that stays in its file: memory-mapped, read-only, never copied.

    ids are int64 in 0 .. rows - 1, else IndexError. Results are float32. Usable from several threads at once.
    """

    def __init__(self, path: str | os.PathLike, rows: int, cols: int, dtype: str, offset: int = 0) -> None:
        """
        Maps the row-major little-endian table that starts `offset` bytes into the file.

        dtype: "float32", "float16" or "bfloat16".
        Raises OSError when the file cannot be opened, ValueError when it is too short or an argument is not allowed.
        """

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    def gather(
        self, ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)]
    ) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
        """ids: [n]. Returns [n, cols]."""

    def gather_into(
        self,
        ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
    ) -> None:
        """gather into out [n, cols]."""

    def group_mean(
        self,
        ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        group_size: int,
    ) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
        """
        ids: [n]. Returns [n / group_size, cols], the mean of every group_size rows; ValueError unless n divides.
        """

    def group_average(
        self,
        ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        text_row: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")]:
        """
        ids: [group_size], text_row: [cols]. Returns [cols]: (text_row + mean of the rows) / 2.
        """

    def group_average_into(
        self,
        ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        text_row: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        out: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")],
    ) -> None:
        """group_average into out [cols], which may be text_row itself."""

def split_prefill(
    upsampled: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    previous: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    group_size: int,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")]:
    """
    The speech head's first inputs, cut out of the upsampled hidden state of T positions.

    upsampled: [T, group_size * H], previous: [H]. Returns [T * group_size - (group_size - 1), H]: row j is
    sub-vector j of the flattened input plus previous. Raises ValueError for other shapes.
    Source: SEMANTICS.md 4.
    """

def split_step_into(
    upsampled: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    index: int,
    previous: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    out: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")],
) -> None:
    """
    out = sub-vector `index` of upsampled + previous.

    upsampled: [group_size * H], previous and out: [H]; out may be previous. Raises ValueError for other shapes,
    IndexError for an index outside 0 .. group_size - 1. Source: SEMANTICS.md 4.
    """

class Sampler:
    """
    Picks ids as Hugging Face's processors do: repetition penalty, temperature, top-k, top-p, one draw.

    Holds the random state (64-bit Mersenne twister) and the set of ids that the repetition penalty applies to.
    Belongs to one thread at a time. Source: SEMANTICS.md 5.
    """

    def __init__(self, seed: int) -> None: ...
    def reseed(self, seed: int) -> None:
        """Starts the random sequence of another seed; the seen ids stay."""

    def remember(
        self, ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)]
    ) -> None:
        """
        ids: [n]. Adds them to the seen ids; IndexError outside 0 .. 2**24 - 1.
        """

    def forget(self) -> None:
        """Empties the set of seen ids."""

    def pick(
        self,
        logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        also_seen: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)]
        | None = None,
        greedy: bool = False,
    ) -> int:
        """
        One id in 0 .. V - 1.

        logits: [V]; also_seen: [m] ids that count as seen for this pick only. top_k 0 and top_p 1 are off.
        greedy takes the largest penalised logit, the first of equals. The draw is an inverse CDF in the order of ids.
        At top-k's edge all equals stay, at top-p's edge the higher ids.
        Raises ValueError when logits hold NaN, +inf or nothing above -inf, or for an option that is not allowed.
        """

class Backbone:
    """
    The dense text model on rows of embeddings, all of it in C++.

    Results are the same bits for any number of threads, and for rows given at once or in parts. A call that raises leaves
    the state as it was before it. Belongs to one thread at a time. Source: SEMANTICS.md 4.
    """

    def __init__(
        self, path: str | os.PathLike, *, num_threads: int = 1, max_positions: int = 4096, cache: str = "fp32"
    ) -> None:
        """
        Maps a backbone file.

        max_positions: that the KV cache may hold; memory is taken as they are used.
        cache: keys and values in "fp32", "fp16" or "int8" (a scale per key and per value).
        The environment variable FACRT_ISA forces an instruction set.
        Raises OSError when the file cannot be opened, RuntimeError when it is no usable backbone file or FACRT_ISA names what
        this processor cannot run, ValueError when an argument is not allowed.
        """

    @property
    def isa(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def num_positions(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def cache_bytes_per_position(self) -> int: ...
    def forward_into(
        self,
        embeds: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
        hidden: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
        logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")],
    ) -> None:
        """
        Runs new positions: embeds [S, H] -> hidden [S, H] after the final norm, and logits [V] of the last one.

        Raises ValueError for another shape, NaN or infinity, and beyond max_positions.
        """

    def truncate(self, position: int) -> None:
        """Forgets every position from `position` on."""

    def read_weights(self) -> int:
        """
        Reads the whole weight file once, all threads together; returns a checksum.
        """

class SpeechHeadLoop:
    """
    The refinement loop: group_size speech tokens per backbone step, all of it in C++.

    Ids and logits are the same for any number of threads, and for a prompt with or without a cached beginning. A call that
    raises leaves the state as it was before it. Belongs to one thread at a time. Source: SEMANTICS.md 4.
    """

    def __init__(
        self, path: str | os.PathLike, *, num_threads: int = 1, max_positions: int = 4096, cache: str = "fp32"
    ) -> None:
        """
        Maps a speech head file.

        max_positions: backbone positions that the KV cache may hold; memory is taken as they are used.
        cache: keys and values in "fp32", "fp16" or "int8" (a scale per key and per value).
        The environment variable FACRT_ISA forces an instruction set.
        Raises OSError when the file cannot be opened, RuntimeError when it is no usable speech head file or FACRT_ISA names
        what this processor cannot run, ValueError when an argument is not allowed.
        """

    @property
    def isa(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def group_size(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def num_positions(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def cache_bytes_per_position(self) -> int: ...
    def prefill(
        self,
        u: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
        sampler: Sampler,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        greedy: bool = False,
    ) -> list[int]:
        """
        The prompt's positions, u [T, H]; returns the group of the last one. Options as in Sampler.pick.

        Raises ValueError for another shape, beyond max_positions, and as Sampler.pick does.
        """

    def group(
        self,
        u: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        sampler: Sampler,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        greedy: bool = False,
    ) -> list[int]:
        """
        One backbone step, u [H]; returns group_size tokens. Raises as prefill does.
        """

    def extend(
        self, u: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)]
    ) -> None:
        """
        The beginning of a prompt, u [T, H], that prefill continues: nothing is chosen. Raises as prefill does.
        """

    def read_weights(self) -> int:
        """
        Reads the whole weight file once, all threads together; returns a checksum.
        """

    def reset(self) -> None:
        """Forgets everything."""

    def truncate(self, position: int) -> None:
        """Forgets every backbone position from `position` on."""

    def logits(self, i: int) -> Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")]:
        """A copy of the logits [K] of sub-step i of the newest group."""

def int8_multiply_adds(num_rounds: int) -> int:
    """
    Performs num_rounds x 1024 int8 multiply-adds in registers, for benchmarks; returns their sum, scaled.
    """
