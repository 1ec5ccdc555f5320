"""Matrices in the tiles that the native kernels read: 16 rows interleaved, in one of six precisions.

The layout of each is written in cpp_ext/include/facrt/packed_matrix.hpp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .schemes import INT4_LIMIT, INT8_LIMIT, quantize_int4, quantize_int8

TILE_ROWS = 16


@dataclass(frozen=True, slots=True)
class Packing:
    """One precision of packed matrices."""

    name: str
    code: int  # in the file's header
    padding: int  # columns are padded to a multiple of it
    tile_bytes: Callable[[int], int]  # padded columns -> bytes of a tile
    pack_tiles: Callable[[Tensor], NDArray[np.uint8]]  # [tiles, 16, padded columns] -> [tiles, tile bytes]
    round: Callable[[Tensor], Tensor]  # [rows, columns] -> what the kernels multiply with, float32

    def matrix_bytes(self, rows: int, cols: int) -> int:
        return -(-rows // TILE_ROWS) * self.tile_bytes(_up(cols, self.padding))

    def pack(self, weight: Tensor) -> bytes:
        """weight [rows, cols] float32, padded with zeros to whole tiles and blocks."""
        rows, cols = weight.shape
        padded = F.pad(weight.float(), (0, _up(cols, self.padding) - cols, 0, _up(rows, TILE_ROWS) - rows))
        return self.pack_tiles(padded.unflatten(0, (-1, TILE_ROWS))).tobytes()


def float32_bytes(values: Tensor) -> bytes:
    return values.detach().contiguous().numpy().astype("<f4", copy=False).tobytes()


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _bytes(tiles: Tensor) -> NDArray[np.uint8]:
    return tiles.contiguous().flatten(1).view(torch.uint8).numpy()


def _pack_floats(dtype: torch.dtype) -> Callable[[Tensor], NDArray[np.uint8]]:
    return lambda tiles: _bytes(tiles.transpose(1, 2).to(dtype))


def _pack_bf16(tiles: Tensor) -> NDArray[np.uint8]:
    return _bytes(tiles.to(torch.bfloat16).unflatten(2, (-1, 2)).transpose(1, 2))


def _pack_int8(tiles: Tensor) -> NDArray[np.uint8]:
    quantized = quantize_int8(tiles)
    biased = (quantized.values.to(torch.int16) + (INT8_LIMIT + 1)).to(torch.uint8)
    return np.concatenate([_bytes(quantized.scales), _bytes(biased.unflatten(2, (-1, 4)).transpose(1, 2))], axis=1)


def _pack_int4(block: int) -> Callable[[Tensor], NDArray[np.uint8]]:
    def pack(tiles: Tensor) -> NDArray[np.uint8]:
        quantized = quantize_int4(tiles, block)
        pairs = tiles.shape[2] // (2 * block)
        low, high = (quantized.values + INT4_LIMIT).to(torch.uint8).unflatten(2, (-1, 2, 4)).unbind(3)
        halves = (low | high << 4).unflatten(2, (pairs, -1)).permute(0, 2, 3, 1, 4).flatten(2)
        scales = quantized.scales.half().unflatten(2, (pairs, 2)).permute(0, 2, 3, 1).contiguous()
        scales = scales.flatten(2).view(torch.uint8)
        return _bytes(torch.cat([scales, halves], dim=2))

    return pack


def _round_int8(weight: Tensor) -> Tensor:
    quantized = quantize_int8(weight)
    return quantized.values * quantized.step


def _round_int4(block: int) -> Callable[[Tensor], Tensor]:
    def rounded(weight: Tensor) -> Tensor:
        quantized = quantize_int4(weight, block)
        return quantized.values * quantized.step

    return rounded


def _int4(code: int, block: int) -> Packing:
    return Packing(
        f"int4_{block}", code, 2 * block, lambda c: c * 8 + c // block * 32, _pack_int4(block), _round_int4(block)
    )


PACKINGS = {
    packing.name: packing
    for packing in (
        Packing("fp32", 0, 32, lambda c: c * 64, _pack_floats(torch.float32), lambda w: w),
        Packing("fp16", 1, 32, lambda c: c * 32, _pack_floats(torch.float16), lambda w: w.half().float()),
        Packing("bf16", 2, 32, lambda c: c * 32, _pack_bf16, lambda w: w.bfloat16().float()),
        Packing("int8", 3, 32, lambda c: 4 * TILE_ROWS + c * 16, _pack_int8, _round_int8),
        _int4(4, 32),
        _int4(5, 128),
    )
}
