"""Choosing the scales of `folds` from activation statistics: AWQ for weights, SmoothQuant for activations.

AWQ: Lin et al. 2023, section 3.2; SmoothQuant: Xiao et al. 2022, equation 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .folds import Fold
from .schemes import INT8_LIMIT, Scheme

AWQ_STEPS = 20  # exponents 0, 0.05 .. 0.95 of the activations' magnitude
AWQ_ROWS = 512  # of the weight, evenly spaced, on which the error is measured
SMOOTH_EXPONENT = 0.5
LIMITS = (1e-4, 1e4)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a product's input looked like over the calibration set."""

    rows: Tensor  # [n, cols] a sample of inputs
    largest: Tensor  # [cols] largest magnitude
    mean: Tensor  # [cols] mean magnitude

    @property
    def step(self) -> float:
        """The scale of static INT8 activations: one for the whole tensor."""
        return max(float(self.largest.max()), 1e-8) / INT8_LIMIT

    def divided(self, scale: Tensor) -> Statistics:
        """After a fold by `scale` [cols]."""
        return Statistics(self.rows / scale, self.largest / scale, self.mean / scale)


def search_awq(fold: Fold, weight: Tensor, found: Statistics, scheme: Scheme) -> Tensor:
    """The scale with which rounding changes the product least on the sampled inputs.

    Args:
        fold: its linear's `weight` [rows, cols] and input statistics `found`.
        scheme: how the weight is rounded.

    Returns:
        Per producer row; ones where no scale is better than none.
    """
    assert scheme.quantize is not None
    weight = weight[:: max(1, weight.shape[0] // AWQ_ROWS)]
    magnitude = fold.shared(found.mean).clamp(min=1e-8)
    best, least = torch.ones_like(magnitude), float("inf")
    for i in range(AWQ_STEPS):
        scale = magnitude ** (i / AWQ_STEPS)
        scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(*LIMITS)
        columns = fold.per_column(scale)
        change = scheme.dequantize(scheme.quantize(weight * columns)) / columns - weight
        error = float((found.rows @ change.T).square().sum())
        if error < least:
            best, least = scale, error
    return best


def smooth(fold: Fold, weight: Tensor, found: Statistics) -> Tensor:
    """Half of the activations' outliers moved into the weight; per producer row."""
    activations = fold.shared(found.largest).clamp(min=1e-5)
    weights = fold.shared(weight.abs().amax(0)).clamp(min=1e-5)
    return (activations**SMOOTH_EXPONENT / weights ** (1 - SMOOTH_EXPONENT)).clamp(*LIMITS)
