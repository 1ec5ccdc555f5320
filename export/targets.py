"""What a bundle can be compiled for: one row per target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RequestError
from ..model.components import CacheLayout
from ..quant.schemes import SCHEMES
from .attention import GraphAttention, GroupQuery


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    caption: str
    opset: int
    attention: Callable[..., GraphAttention]  # one of export.attention's forms
    cache: CacheLayout  # the layout that the form needs
    schemes: tuple[str, ...]  # keys of quant.schemes.SCHEMES that it runs


TARGETS = {
    row.name: row
    for row in (
        Target(
            "cpu",
            "ONNX Runtime on the CPU",
            opset=21,
            attention=GroupQuery,  # fastest of the four forms from 500 positions on: bench/attention_forms.py
            cache="static",
            schemes=tuple(name for name in SCHEMES if name != "fp8"),  # no E4M3 kernels on a CPU
        ),
    )
}


def find_target(name: str) -> Target:
    """The row of that name.

    Raises:
        RequestError: there is none; the message lists those there are.
    """
    if name not in TARGETS:
        raise RequestError(f"target {name!r} is unknown; allowed: {', '.join(TARGETS)}")
    return TARGETS[name]
