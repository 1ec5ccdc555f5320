"""Schemes: an error bounded by the scheme's own step, zeros, outliers, the same integers in every packed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facrt.export.quantized import nbits_block, pack_nbits
from facrt.quant.packing import PACKINGS
from facrt.quant.schemes import SCHEMES, Scheme
from torch import Tensor

INTEGERS = [scheme for scheme in SCHEMES.values() if scheme.quantize]
# largest error in steps: half of one, a whole one where the range is not symmetric (-8 .. 7); E4M3 has 3 bits behind
# the point: half of 32 at the top, scaled
STEPS = {"int8": 0.5, "w8a8": 0.5, "fp8": 16.0}


def weights(rows: int = 20, cols: int = 200) -> Tensor:
    """Rows of very different magnitude, one of zeros, one with an outlier, and a block of zeros."""
    weight = torch.randn(rows, cols, generator=torch.Generator().manual_seed(1))
    weight *= torch.logspace(-3, 3, rows)[:, None]
    weight[3] = 0
    weight[4, 17] = 1e4
    weight[5, 128:160] = 0
    return weight


@pytest.mark.parametrize("scheme", INTEGERS, ids=lambda s: s.name)
def test_the_error_is_bounded_by_the_step(scheme: Scheme) -> None:
    weight = weights()
    assert scheme.quantize is not None
    quantized = scheme.quantize(weight)
    error = (scheme.dequantize(quantized) - weight).abs()
    assert bool((error <= quantized.step.abs() * (STEPS.get(scheme.name, 1.0) + 0.01)).all())
    assert float(error.square().sum() / weight.square().sum()) < 0.02


@pytest.mark.parametrize("scheme", INTEGERS, ids=lambda s: s.name)
def test_zeros_stay_zero_and_an_outlier_harms_no_other_row(scheme: Scheme) -> None:
    weight = weights()
    assert scheme.quantize is not None
    found = scheme.dequantize(scheme.quantize(weight))
    assert not found[3].any()
    assert not found[5, 128:160].any()
    without = weight.clone()
    without[4, 17] = 0
    others = torch.arange(len(weight)) != 4
    assert torch.equal(scheme.dequantize(scheme.quantize(without))[others], found[others])
    assert float((found[4, 17] - 1e4).abs()) < 100
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("scheme", [s for s in INTEGERS if s.bits == 4], ids=lambda s: s.name)
def test_an_outlier_harms_only_its_block(scheme: Scheme) -> None:
    assert scheme.quantize is not None
    weight = torch.randn(2, 256, generator=torch.Generator().manual_seed(2))
    plain = scheme.dequantize(scheme.quantize(weight))
    weight[0, 5] = 1e3
    struck = scheme.dequantize(scheme.quantize(weight))
    assert torch.equal(struck[:, scheme.block :], plain[:, scheme.block :])
    assert not torch.equal(struck[0, : scheme.block], plain[0, : scheme.block])


@pytest.mark.parametrize("scheme", [s for s in INTEGERS if not s.quantizes_activations], ids=lambda s: s.name)
@pytest.mark.parametrize("cols", [200, 96, 40])
def test_the_graph_and_the_native_head_hold_the_same_integers(scheme: Scheme, cols: int) -> None:
    weight = weights(20, 200)[:, :cols].contiguous()
    block = nbits_block(scheme, cols)
    packed, scales = pack_nbits(scheme, weight, block)
    assert packed.shape == (20, -(-cols // block), block * scheme.bits // 8)
    codes = packed.astype(np.int16)
    if scheme.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*packed.shape[:2], block)
    integers = codes - (1 << (scheme.bits - 1))
    found = (integers * scales[..., None]).reshape(20, -1)[:, :cols]
    native = PACKINGS[scheme.packing].round(weight).numpy()
    np.testing.assert_allclose(found, native, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "limit"), [("int8", 1.15), ("int4_32", 0.7), ("int4_128", 0.7)])
def test_bytes_per_weight(name: str, limit: float) -> None:
    weight = torch.randn(64, 1024)
    parts = pack_nbits(SCHEMES[name], weight, nbits_block(SCHEMES[name], 1024))
    assert sum(part.nbytes for part in parts) / weight.numel() <= limit
