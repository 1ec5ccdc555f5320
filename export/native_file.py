"""Weight files of the native loops, written one tensor at a time (layout: cpp_ext/include/facrt/*_file.hpp)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..model.config import DecoderConfig
from ..model.decoder import Decoder
from ..quant.packing import PACKINGS, Packing, float32_bytes
from .tables import Reader

ALIGNMENT = 64
ROWS_AT_ONCE = 1024  # of a matrix, while it is packed; a multiple of 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: rows `rows` of a parameter, in the form of its packing."""

    parameter: Tensor
    packing: Packing | None  # None: as it is, in `dtype`
    rows: slice = field(default_factory=lambda: slice(None))
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


def supports(config: DecoderConfig) -> bool:
    """Whether the C++ decoder runs this transformer: it must be dense."""
    return not any(config.is_sparse(i) for i in range(config.num_layers))


def find_packing(precision: str) -> Packing:
    """How matrices of that precision are packed.

    Raises:
        RequestError: there is no such precision; the message lists those there are.
    """
    if precision not in PACKINGS:
        raise RequestError(f"speech head precision {precision!r} is unknown; allowed: {', '.join(PACKINGS)}")
    return PACKINGS[precision]


def smallest_exact(module: nn.Module, readers: Mapping[int, Reader]) -> str:
    """The smallest float precision that holds every matrix of a module as it is: bf16, fp16, or fp32.

    Arithmetic is float32 in all three, so they give the same bits; a step reads half as much in the first two.

    Args:
        module: its large parameters may still be on disk, then `readers` has them.
        readers: id of a parameter -> what reads it.
    """
    left = ["bf16", "fp16"]
    for parameter in module.parameters():
        if parameter.dim() < 2 or not left:
            continue
        read = readers.get(id(parameter))
        rows = (read() if read else parameter).split(ROWS_AT_ONCE)
        left = [name for name in left if all(torch.equal(PACKINGS[name].round(r), r.float()) for r in rows)]
    return left[0] if left else "fp32"


def linear(module: nn.Module, name: str, packing: Packing) -> Iterator[Entry]:
    """The matrix of one layer, and its bias where it has one."""
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    yield Entry(layer.weight, packing)
    if layer.bias is not None:
        yield Entry(layer.bias, None)


def decoder_entries(decoder: Decoder, packing: Packing) -> Iterator[Entry]:
    """A dense decoder's layers and its last norm, in the order of `DecoderLayer`."""
    for i in range(decoder.config.num_layers):
        layer = decoder.get_submodule(f"layers.{i}")
        yield Entry(layer.get_parameter("attention_norm.weight"), None)
        yield from linear(layer, "qkv", packing)
        yield Entry(layer.get_parameter("q_norm.weight"), None)
        yield Entry(layer.get_parameter("k_norm.weight"), None)
        yield from linear(layer, "out", packing)
        yield Entry(layer.get_parameter("mlp_norm.weight"), None)
        gate_up = layer.get_parameter("mlp.gate_up.weight")
        yield Entry(gate_up, packing, slice(None, gate_up.shape[0] // 2))
        yield Entry(gate_up, packing, slice(gate_up.shape[0] // 2, None))
        yield from linear(layer, "mlp.down", packing)
    yield Entry(decoder.get_parameter("norm.weight"), None)


def write_file(head: bytes, entries: Sequence[Entry], readers: Mapping[int, Reader], path: Path) -> int:
    """Writes header, table of tensors, and tensors; returns the size.

    Args:
        head: magic number and sizes, up to the file's own size.
        entries: in the file's order; large parameters may still be on disk.
        readers: id of a parameter -> what reads it.
        path: the file.
    """
    places, end = [], len(head) + 16 * (1 + len(entries))
    for entry in entries:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        places.append((start, entry.size_bytes))
        end = start + entry.size_bytes
    with path.open("wb") as file:
        file.write(head + struct.pack("<QQ", end, len(places)))
        for place in places:
            file.write(struct.pack("<QQ", *place))
        for entry, (start, size) in zip(entries, places, strict=True):
            file.write(bytes(start - file.tell()))
            read = readers.get(id(entry.parameter))
            _write(file, entry, (read() if read else entry.parameter)[entry.rows])
            assert file.tell() == start + size, "packing and its size disagree"
    return end


def _write(file: IO[bytes], entry: Entry, values: Tensor) -> None:
    if entry.packing is None:
        rows = values.to(entry.dtype).contiguous()
        file.write(rows.view(torch.uint8).numpy().data if rows.dtype != torch.float32 else float32_bytes(rows))
        return
    for first in range(0, values.shape[0], ROWS_AT_ONCE):
        file.write(entry.packing.pack(values[first : first + ROWS_AT_ONCE]))
