"""The refinement loop on the GPU: `group_size` launches of a one-step engine, each token fed back without the host.

Never run on a GPU so far: docs/TENSORRT.md says what is tested and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.components import MAX_CANDIDATES
from ..model.config import ChatConfig
from ..model.settings import GenerationSettings
from . import _native, cuda
from .backend import Array
from .backend_tensorrt import StaticDecoder, TensorRtBackend, run
from .sampling import SpeechSampling
from .speech_head import OnnxSpeechHead

SLOT_BYTES = 256  # TensorRT's addresses are multiples of it


def choice_inputs(settings: GenerationSettings) -> dict[str, NDArray] | None:
    """The settings as the graph `speech_choice` takes them; None: it cannot choose so, the host must."""
    if not settings.do_sample:
        top_k, top_p, temperature = 1, 1.0, 1.0
    elif 1 <= settings.top_k <= MAX_CANDIDATES:
        top_k, top_p, temperature = settings.top_k, settings.top_p, settings.temperature
    else:
        return None
    return {
        "penalty": np.array([settings.repetition_penalty], np.float32),
        "temperature": np.array([temperature], np.float32),
        "top_k": np.array([top_k], np.int64),
        "top_p": np.array([top_p], np.float32),
    }


class TensorRtSpeechHead(OnnxSpeechHead):
    """Prompts as any backend runs them; groups on the device, as one CUDA graph where the caches are static."""

    def __init__(
        self, backend: TensorRtBackend, table: _native.EmbeddingTable, config: ChatConfig, capacity: int
    ) -> None:
        super().__init__(backend, table, config, capacity)
        self._loop = DeviceLoop(backend, self.decoder, config)

    def group(self, u: Array, sampling: SpeechSampling) -> list[int]:
        inputs = choice_inputs(sampling.settings)
        if inputs is None:
            return super().group(u, sampling)
        previous = self._last_tokens[-1] if self._last_tokens else self._config.speech_bos_id
        noise = sampling.noise.gumbel(size=(self._config.group_size, MAX_CANDIDATES)).astype(np.float32)
        tokens, self._logits = self._loop.run(u, previous, sampling.seen, inputs, noise)
        self._feed(tokens[-1])
        self._last_tokens.append(tokens[-1])
        return tokens


class DeviceLoop:
    """Buffers, contexts and the recorded group of one speech head."""

    def __init__(self, backend: TensorRtBackend, decoder: Any, config: ChatConfig) -> None:
        self._config, self._decoder, self._stream = config, decoder, backend.stream
        names = ("speech_upsampling", "speech_input", "speech_choice")
        self._engines = {name: backend.engine(name) for name in names}  # must outlive their contexts
        self._contexts = {name: engine.create_execution_context() for name, engine in self._engines.items()}
        size, codes, hidden = config.group_size, config.codebook_size, config.text.hidden_size
        self._given = Block(
            {
                "u": ("float32", (1, hidden), 1),
                "position": ("int64", (1,), size),
                "index": ("int64", (1,), size),
                "token": ("int64", (1,), 1),
                "seen": ("float32", (codes,), 1),
                "penalty": ("float32", (1,), 1),
                "temperature": ("float32", (1,), 1),
                "top_k": ("int64", (1,), 1),
                "top_p": ("float32", (1,), 1),
                "noise": ("float32", (MAX_CANDIDATES,), size),
            }
        )
        self._made = Block(
            {
                "sub_vectors": ("float32", (1, size * hidden), 1),
                "z": ("float32", (1, hidden), 1),
                "seen_too": ("float32", (codes,), 2),  # one is read while the other is written
                "logits": ("float32", (codes,), size),
                "chosen": ("int64", (1,), size),
            }
        )
        for i in range(size):
            self._given.array("index", i)[:] = i
        self._contexts["speech_upsampling"].set_input_shape("u", (1, hidden))
        self._graph: cuda.CudaGraph | None = None
        self._num_runs = 0

    def run(
        self, u: Array, previous: int, seen: list[int], choice: Mapping[str, NDArray], noise: NDArray
    ) -> tuple[list[int], Array]:
        """One group.

        Args:
            u: [H]. previous: the token before the group. seen: ids that the repetition penalty applies to.
            choice: of `choice_inputs`. noise: [group_size, MAX_CANDIDATES].

        Returns:
            The tokens, and their logits [group_size, K].
        """
        size, start, given = self._config.group_size, self._decoder.length, self._given
        given.array("u")[...] = u
        given.array("token")[:] = previous
        flags = given.array("seen")
        flags[:] = 0
        flags[seen] = 1
        for name, value in choice.items():
            given.array(name)[...] = value
        for i in range(size):
            given.array("position", i)[:] = start + i
            given.array("noise", i)[:] = noise[i]
        if self._graph is not None:
            self._graph.launch(self._stream)
        elif isinstance(self._decoder, StaticDecoder) and self._num_runs:  # kernels are made in the first run
            with self._stream.capture() as graph:
                self._queue()
            self._graph = graph
            graph.launch(self._stream)
        else:
            self._queue()
        self._stream.wait()
        self._num_runs += 1
        self._decoder.length = start + size
        tokens = [int(self._made.array("chosen", i)[0]) for i in range(size)]
        return tokens, np.stack([self._made.array("logits", i) for i in range(size)])

    def _queue(self) -> None:
        """Everything from the upload to the download; no call in it waits."""
        given, made = self._given, self._made
        given.upload(self._stream)
        self._launch("speech_upsampling", {"u": given.address("u"), "sub_vectors": made.address("sub_vectors")})
        for i in range(self._config.group_size):
            before = made.address("chosen", i - 1) if i else given.address("token")
            joined = {"sub_vectors": made.address("sub_vectors"), "index": given.address("index", i), "token": before}
            self._launch("speech_input", {**joined, "z": made.address("z")})
            logits = made.address("logits", i)
            self._decoder.launch(1, made.address("z"), {"logits": logits}, given.address("position", i))
            self._decoder.length += 1
            seen = made.address("seen_too", (i - 1) % 2) if i else given.address("seen")
            fixed = {name: given.address(name) for name in ("penalty", "temperature", "top_k", "top_p")}
            results = {"chosen": made.address("chosen", i), "seen_too": made.address("seen_too", i % 2)}
            given_now = {"logits": logits, "seen": seen, "noise": given.address("noise", i)}
            self._launch("speech_choice", {**given_now, **fixed, **results})
        made.download(self._stream)

    def _launch(self, name: str, addresses: Mapping[str, int]) -> None:
        context = self._contexts[name]
        for tensor, address in addresses.items():
            context.set_tensor_address(tensor, address)
        run(context, name, self._stream)


class Block:
    """Tensors that travel together: one piece of device memory and its pinned twin, each tensor in slots of its own."""

    def __init__(self, tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> None:
        # name -> dtype, shape, how many of them
        self._places: dict[str, tuple[int, int]] = {}  # name -> offset, stride
        self._tensors = tensors
        end = 0
        for name, (dtype, shape, count) in tensors.items():
            stride = -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // SLOT_BYTES) * SLOT_BYTES
            self._places[name] = (end, stride)
            end += count * stride
        self.num_bytes = end
        self._device, self._host = cuda.Memory(end), cuda.Memory(end, pinned=True)

    def address(self, name: str, index: int = 0) -> int:
        offset, stride = self._places[name]
        return self._device.address + offset + index * stride

    def array(self, name: str, index: int = 0) -> NDArray:
        """The pinned twin of one tensor."""
        offset, stride = self._places[name]
        dtype, shape, _ = self._tensors[name]
        place = self._host.address + offset + index * stride
        return cuda.as_array(place, dtype, shape)

    def upload(self, stream: cuda.Stream) -> None:
        stream.copy(self._device.address, self._host.address, self.num_bytes)

    def download(self, stream: cuda.Stream) -> None:
        stream.copy(self._host.address, self._device.address, self.num_bytes)
