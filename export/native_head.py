"""The speech head's weight file for the native loop, written one tensor at a time (layout: speech_head_file.hpp)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ..errors import RequestError
from ..model.config import ChatConfig
from ..model.speech_head import SpeechHead
from ..quant.packing import PACKINGS, Packing, float32_bytes
from .tables import Reader

FILE = "speech_head.bin"
MAGIC = b"FACRTSH\0"
VERSION = 1
ALIGNMENT = 64
ROWS_AT_ONCE = 1024  # of a matrix, while it is packed; a multiple of 16


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the file: rows `rows` of a parameter, in the form of its packing."""

    parameter: Tensor
    packing: Packing | None  # None: as it is, in `dtype`
    rows: slice
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        start, stop, _ = self.rows.indices(self.parameter.shape[0])
        return (stop - start, *self.parameter.shape[1:])

    @property
    def size_bytes(self) -> int:
        if self.packing is None:
            return int(torch.Size(self.shape).numel()) * self.dtype.itemsize
        return self.packing.matrix_bytes(*self.shape)


def supports(config: ChatConfig) -> bool:
    """Whether the native loop runs this head: its transformer must be dense."""
    return not any(config.speech.is_sparse(i) for i in range(config.speech.num_layers))


def find_packing(precision: str) -> Packing:
    """How matrices of that precision are packed.

    Raises:
        RequestError: there is no such precision; the message lists those there are.
    """
    if precision not in PACKINGS:
        raise RequestError(f"speech head precision {precision!r} is unknown; allowed: {', '.join(PACKINGS)}")
    return PACKINGS[precision]


def write_native_head(
    head: SpeechHead, config: ChatConfig, readers: Mapping[int, Reader], precision: str, path: Path
) -> int:
    """Writes the file; returns its size.

    Args:
        head: its large parameters may still be on disk, then `readers` has them.
        config: the sizes.
        readers: id of a parameter -> what reads it.
        precision: of the matrices, a key of `PACKINGS`.
        path: the file.

    Raises:
        RequestError: there is no such precision.
    """
    packing = find_packing(precision)
    entries = list(_entries(head, packing))
    header_bytes = len(_header(config, packing, 0, [(0, 0)] * len(entries)))
    places, end = [], header_bytes
    for entry in entries:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        places.append((start, entry.size_bytes))
        end = start + entry.size_bytes
    with path.open("wb") as file:
        file.write(_header(config, packing, end, places))
        for entry, (start, size) in zip(entries, places, strict=True):
            file.write(bytes(start - file.tell()))
            read = readers.get(id(entry.parameter))
            _write(file, entry, (read() if read else entry.parameter)[entry.rows])
            assert file.tell() == start + size, "packing and its size disagree"
    return end


def _entries(head: SpeechHead, packing: Packing) -> Iterator[_Entry]:
    parameters = dict(head.named_parameters())

    def linear(name: str) -> Iterator[_Entry]:
        yield _Entry(parameters[f"{name}.weight"], packing, slice(None))
        if f"{name}.bias" in parameters:
            yield _Entry(parameters[f"{name}.bias"], None, slice(None))

    def norm(name: str) -> _Entry:
        return _Entry(parameters[f"{name}.weight"], None, slice(None))

    yield from linear("upsample")
    yield from linear("input")
    for i in range(head.decoder.config.num_layers):
        layer = f"decoder.layers.{i}"
        yield norm(f"{layer}.attention_norm")
        yield from linear(f"{layer}.qkv")
        yield norm(f"{layer}.q_norm")
        yield norm(f"{layer}.k_norm")
        yield from linear(f"{layer}.out")
        yield norm(f"{layer}.mlp_norm")
        gate_up = parameters[f"{layer}.mlp.gate_up.weight"]
        yield _Entry(gate_up, packing, slice(None, gate_up.shape[0] // 2))
        yield _Entry(gate_up, packing, slice(gate_up.shape[0] // 2, None))
        yield from linear(f"{layer}.mlp.down")
    yield norm("decoder.norm")
    yield from linear("output")
    yield from linear("head")
    embedding_dtype = torch.float32 if packing.name == "fp32" else torch.bfloat16
    yield _Entry(parameters["head.weight"], None, slice(None), embedding_dtype)


def _header(config: ChatConfig, packing: Packing, size_bytes: int, places: list[tuple[int, int]]) -> bytes:
    speech = config.speech
    dims = (
        config.text.hidden_size, speech.hidden_size, speech.intermediate_size, speech.num_layers, speech.num_heads,
        speech.num_kv_heads, speech.head_dim, config.group_size, config.codebook_size, config.speech_bos_id,
        int(speech.attention_bias),
    )  # fmt: skip
    fixed = struct.pack(
        "<8s13IfdQQ", MAGIC, VERSION, packing.code, *dims, speech.rms_norm_eps, speech.rope_theta, size_bytes,
        len(places),
    )  # fmt: skip
    return fixed + b"".join(struct.pack("<QQ", *place) for place in places)


def _write(file: IO[bytes], entry: _Entry, values: Tensor) -> None:
    if entry.packing is None:
        rows = values.to(entry.dtype).contiguous()
        file.write(rows.view(torch.uint8).numpy().data if rows.dtype != torch.float32 else float32_bytes(rows))
        return
    for first in range(0, values.shape[0], ROWS_AT_ONCE):
        file.write(entry.packing.pack(values[first : first + ROWS_AT_ONCE]))
