"""What a bundle can be compiled for: one row per target; no torch, so that a device can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import RequestError
from ..model.components import Cache, CacheLayout

CPU_SCHEMES = ("fp32", "fp16", "int8", "int4_128", "int4_32", "awq_128", "awq_32", "w8a8")  # no E4M3 kernels on a CPU
# INT4 in blocks of 128: what TensorRT's weight-only kernels take
GPU_SCHEMES = ("fp32", "fp16", "int8", "int4_128", "awq_128", "w8a8", "fp8")
ORIN_SCHEMES = GPU_SCHEMES[:-1]  # SM87 has no FP8
# caches are float16 there, and TensorRT's `Attention` takes no float32
HALF_DECODERS = dict.fromkeys(("backbone", "speech_head"), GPU_SCHEMES[1:])
ORIN_DECODERS = dict.fromkeys(("backbone", "speech_head"), ORIN_SCHEMES[1:])
GPU_RECIPE = {"awq_32": "awq_128"}
CACHES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}  # the user's word -> numpy's


@dataclass(frozen=True, slots=True)
class Build:
    """How a target's graphs become TensorRT plans."""

    library: Literal["tensorrt_rtx", "tensorrt"]
    minimum: tuple[int, int]  # the library's oldest version that takes these graphs
    capabilities: tuple[int, ...]  # SM numbers: what an ahead-of-time plan is for, or where a device's may be
    ahead_of_time: bool = False  # compiled without a GPU, by `facrt export`


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    caption: str
    opset: int
    attention: Literal["Decomposed", "Sdpa", "Scatter", "GroupQuery"]  # a form of export.attention
    cache: CacheLayout  # the layout that the form needs
    schemes: tuple[str, ...]  # keys of quant.schemes.SCHEMES that it runs
    integers: Literal["nbits", "qdq"] = "qdq"  # MatMulNBits in float32 arithmetic; or Q/DQ in float16 arithmetic
    cache_dtype: str = "float16"
    has_int8_cache: bool = False  # whether the form can keep keys and values as INT8 too
    limited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # component -> schemes, where not all
    default: str = "fp16"  # the recipe where the user names none
    substitutes: Mapping[str, str] = field(default_factory=dict)  # scheme of a recipe -> what is taken in its place
    build: Build | None = None

    def with_cache(self, kind: str | None) -> Target:
        """The row with keys and values kept as "fp32", "fp16" or "int8"; None: as it is.

        Raises:
            RequestError: the target does not keep them so; the message lists how it can.
        """
        own = next(word for word, dtype in CACHES.items() if dtype == self.cache_dtype)
        allowed = (own, "int8") if self.has_int8_cache else (own,)
        if kind is not None and kind not in allowed:
            raise RequestError(f"target {self.name} has no {kind} KV cache; allowed: {', '.join(allowed)}")
        return replace(self, cache_dtype=CACHES[kind or own])

    def keep(self, positions: int) -> Cache:
        """The decoders' caches; what TensorRT compiles has their length for good."""
        return Cache(self.cache, self.cache_dtype, positions if self.build is not None else None)


TARGETS = {
    row.name: row
    for row in (
        Target(
            "cpu",
            "ONNX Runtime on the CPU",
            opset=21,
            attention="GroupQuery",  # fastest of the four forms from 500 positions on: bench/attention_forms.py
            cache="static",
            schemes=CPU_SCHEMES,
            integers="nbits",
            cache_dtype="float32",
            has_int8_cache=True,
            default="fp32",
        ),
        Target(
            "rtx",
            "TensorRT-RTX on a desktop GPU, compiled ahead of time",
            opset=24,
            attention="Scatter",
            cache="static",
            schemes=GPU_SCHEMES,
            limited=HALF_DECODERS,
            substitutes=GPU_RECIPE,
            build=Build("tensorrt_rtx", (1, 7), (80, 86, 89, 120), ahead_of_time=True),
        ),
        Target(
            "orin-jp6",
            "TensorRT 10.3 on a Jetson Orin with JetPack 6, compiled there",
            opset=18,
            attention="Decomposed",  # 10.3 has neither Attention nor TensorScatter
            cache="prefix",
            has_int8_cache=True,
            schemes=ORIN_SCHEMES,
            limited=ORIN_DECODERS,
            substitutes=GPU_RECIPE,
            build=Build("tensorrt", (10, 3), (87,)),
        ),
        Target(
            "orin",
            "TensorRT on a Jetson Orin with JetPack 7.2, compiled there",
            opset=24,
            attention="Scatter",
            cache="static",
            schemes=ORIN_SCHEMES,
            limited=ORIN_DECODERS,
            substitutes=GPU_RECIPE,
            build=Build("tensorrt", (10, 15), (87,)),  # the first with KV-cache updates
        ),
        Target(
            "thor",
            "TensorRT on a Jetson AGX Thor with JetPack 7.2, compiled there",
            opset=24,
            attention="Scatter",
            cache="static",
            schemes=GPU_SCHEMES,
            limited=HALF_DECODERS,
            substitutes=GPU_RECIPE,
            build=Build("tensorrt", (10, 15), (101, 110)),  # 110 in CUDA 13, 101 before
        ),
        Target(
            "cuda",
            "TensorRT 11 on an x86 machine with an NVIDIA GPU, compiled there; or ONNX Runtime's CUDA provider",
            opset=24,
            attention="Scatter",
            cache="static",
            schemes=GPU_SCHEMES,
            limited=HALF_DECODERS,
            substitutes=GPU_RECIPE,
            build=Build("tensorrt", (11, 0), (75, 80, 86, 89, 90, 100, 103, 120)),
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
