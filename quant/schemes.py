"""How matrices become integers: one row per scheme, two verbs each, the same integers for every backend.

A scheme works on a weight [rows, cols] of `y = x @ weight.T`; each row is one output channel. Rows are independent, so
a large matrix may be quantized a few rows at a time. Calibrated schemes round like the plain one after the model has
been rewritten by `folds`: calibration changes what is rounded, never how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the table alone is read where there is no torch
    from torch import Tensor

INT8_LIMIT = 127
INT4_LIMIT = 8
FP8_LIMIT = 448.0  # the largest E4M3 number


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix as stored numbers and what they are multiplied by."""

    values: Tensor  # [rows, cols] int8 (INT4 too: -8 .. 7), or float8_e4m3fn
    scales: Tensor  # [rows, ceil(cols / block)] float32; one column where a row has one scale
    block: int  # columns per scale

    @property
    def step(self) -> Tensor:
        """The distance of neighbouring integers, per element [rows, cols]."""
        return self.scales.repeat_interleave(self.block, -1)[..., : self.values.shape[-1]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store a component's matrices."""

    name: str
    caption: str
    quantize: Callable[[Tensor], Quantized] | None = None  # [rows, cols] float32; None: stored as floating point
    bits: int = 0  # of a stored integer
    block: int = 0  # columns per scale; 0: a whole row
    calibration: str | None = None  # "awq" or "smoothquant": how `folds` are chosen
    quantizes_activations: bool = False
    packing: str = ""  # the speech head's native form with these integers, a key of packing.PACKINGS

    def dequantize(self, quantized: Quantized) -> Tensor:
        """[rows, cols] float32, what the integers stand for."""
        return quantized.values.float() * quantized.step


def quantize_int8(weight: Tensor) -> Quantized:
    """Symmetric, one scale per row, integers in -127 .. 127; leading axes are free."""
    import torch

    scale = weight.abs().amax(-1, keepdim=True) / INT8_LIMIT
    return Quantized(_divide(weight, scale).round_().to(torch.int8), scale, weight.shape[-1])


def quantize_int4(weight: Tensor, block: int) -> Quantized:
    """Symmetric, one float16 scale per block of columns, the value furthest from zero at -8; integers in -8 .. 7.

    Leading axes are free; the last block may be shorter.
    """
    import torch
    import torch.nn.functional as F

    cols = weight.shape[-1]
    blocks = F.pad(weight, (0, -cols % block)).unflatten(-1, (-1, block))
    furthest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = (furthest / -INT4_LIMIT).half().float()
    integers = _divide(blocks, scale).round_().clamp_(-INT4_LIMIT, INT4_LIMIT - 1).to(torch.int8)
    return Quantized(integers.flatten(-2)[..., :cols].contiguous(), scale[..., 0], block)


def quantize_fp8(weight: Tensor) -> Quantized:
    """E4M3 with one scale per row, the value furthest from zero at +-448."""
    import torch

    scale = weight.abs().amax(-1, keepdim=True) / FP8_LIMIT
    return Quantized(_divide(weight, scale).to(torch.float8_e4m3fn), scale, weight.shape[-1])


def _divide(values: Tensor, scale: Tensor) -> Tensor:
    import torch

    return torch.where(scale == 0, torch.zeros_like(values), values / scale)


def _int4(block: int, calibration: str | None) -> Scheme:
    name = f"awq_{block}" if calibration else f"int4_{block}"
    how = "activation-aware (AWQ)" if calibration else "round to nearest"
    return Scheme(
        name, f"INT4 weights, a scale per {block}, {how}", lambda w: quantize_int4(w, block), 4, block, calibration,
        packing=f"int4_{block}",
    )  # fmt: skip


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("fp32", "float32", packing="fp32"),
        Scheme("fp16", "stored as float16, computed in float32", packing="fp16"),
        Scheme("int8", "INT8 weights, a scale per row", quantize_int8, 8, packing="int8"),
        _int4(128, None),
        _int4(32, None),
        _int4(128, "awq"),
        _int4(32, "awq"),
        Scheme(
            "w8a8", "INT8 weights and activations (SmoothQuant)", quantize_int8, 8, 0, "smoothquant", True, "int8"
        ),
        Scheme("fp8", "E4M3 weights and activations", quantize_fp8, 8, 0, "smoothquant", True, "bf16"),
    )
}  # fmt: skip
