"""What a model can run on: one row per board or card, with a source for each number; and this machine, measured."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..errors import RequestError
from .memory import available_bytes, total_bytes

GB, GIB = 10**9, 1 << 30
_SWEEP_BYTES = 256 << 20  # larger than any cache
_LEAST_ROUNDS, _MEASURED_S = 5, 0.7  # of each rate


@dataclass(frozen=True, slots=True)
class Device:
    """A row. Rates are peaks as published; what share of them a model gets is `plan.Rates`."""

    name: str
    caption: str
    target: str  # of `facrt export`
    memory_bytes: int
    reserved_bytes: int  # taken by the system before a model is loaded; an assumption where not measured
    bandwidth: float  # bytes per second
    macs: float  # dense tensor multiply-adds per second, fp16 in and fp32 summed; on a CPU fp32
    integer_macs: float  # int8 multiply-adds per second
    sm: int | None  # CUDA compute capability times ten; None: a CPU
    unified: bool  # the CPU's memory is the model's too
    memory_source: str  # memory and bandwidth
    macs_source: str

    @property
    def is_cpu(self) -> bool:
        return self.sm is None

    def runs(self, scheme: str) -> bool:
        """FP8 needs a compute capability of 8.9 or more (TensorRT's support matrix); INT8 and INT4 run everywhere."""
        return scheme != "fp8" or (self.sm is not None and self.sm >= 89)


_ORIN = "NVIDIA, Jetson AGX Orin Series data sheet (DS-10662)"
_NX = "NVIDIA, Jetson Orin NX Series data sheet (DS-10712)"
_NANO = "NVIDIA, Jetson Orin Nano Series data sheet (DS-11105)"
_SUPER = "NVIDIA developer blog, Jetson Orin Nano Developer Kit gets a Super boost (2024-12)"
_THOR = "NVIDIA, Jetson Thor Series modules data sheet"
_SPARK = "NVIDIA, DGX Spark data sheet"
_ADA = "NVIDIA, Ada GPU architecture whitepaper, appendix"
_BLACKWELL = "NVIDIA, RTX Blackwell GPU architecture whitepaper, appendix"
_SUMMED = "FP16 tensor, summed in FP32"


def _orin(name: str, caption: str, gigabytes: int, bandwidth: float, sparse_tops: float, source: str) -> Device:
    """An Orin module, by the sparse INT8 rate of its GPU: half of it is dense, and half of that is FP16."""
    flops = sparse_tops * 1e12 / 4
    return Device(
        name, f"Jetson {caption}", "orin", gigabytes * GIB, 3 * GIB // 2, bandwidth * GB, flops / 2, flops, 87, True,
        source, f"{source}: {sparse_tops:g} sparse INT8 TOPS of the GPU, a quarter in dense FP16",
    )  # fmt: skip


def _unified(
    name: str, caption: str, target: str, sm: int, gigabytes: int, bandwidth: float, fp4_tflops: float, source: str
) -> Device:
    """A Blackwell board, by its sparse FP4 rate: an eighth of it is dense FP16."""
    flops = fp4_tflops * 1e12 / 8
    return Device(
        name, caption, target, gigabytes * GIB, 4 * GIB, bandwidth * GB, flops / 2, flops, sm, True,
        source, f"{source}: {fp4_tflops:g} sparse FP4 TFLOPS, an eighth in dense FP16",
    )  # fmt: skip


def _card(
    name: str, target: str, sm: int, gigabytes: int, bandwidth: float, tflops: float, source: str, how: str
) -> Device:
    """A card with memory of its own; tflops: dense FP16, summed in FP32."""
    macs = tflops * 1e12 / 2
    return Device(
        name, f"{name.upper().replace('-', ' ')} {gigabytes} GB", target, gigabytes * GIB, GIB // 2, bandwidth * GB,
        macs, 2 * macs, sm, False, source, f"{source}: {how}",
    )  # fmt: skip


DEVICES = {
    row.name: row
    for row in (
        _orin("agx-orin-64", "AGX Orin 64 GB", 64, 204.8, 170, _ORIN),
        _orin("agx-orin-32", "AGX Orin 32 GB", 32, 204.8, 108, _ORIN),
        _orin("orin-nx-16", "Orin NX 16 GB", 16, 102.4, 60, _NX),
        _orin("orin-nx-8", "Orin NX 8 GB", 8, 102.4, 50, _NX),
        _orin("orin-nano-8", "Orin Nano 8 GB (15 W)", 8, 68, 40, _NANO),
        _orin("orin-nano-8-super", "Orin Nano 8 GB (MAXN SUPER)", 8, 102, 67, _SUPER),
        _unified("agx-thor", "Jetson AGX Thor (T5000)", "thor", 110, 128, 273, 2070, _THOR),
        _unified("gb10", "DGX Spark (GB10)", "cuda", 121, 128, 273, 1000, _SPARK),
        _card("rtx-3060", "rtx", 86, 12, 360, 25.5, "NVIDIA, GeForce RTX 3060 product page and GA102 whitepaper",
              "112 tensor cores x 64 multiply-adds a clock (" + _SUMMED + ") x 1.777 GHz"),
        _card("rtx-4060", "rtx", 89, 8, 272, 30.25, "NVIDIA, GeForce RTX 4060 product page",
              "242 sparse INT8 TOPS, an eighth in " + _SUMMED),
        _card("rtx-4090", "rtx", 89, 24, 1008, 165.2, _ADA, _SUMMED),
        _card("rtx-5090", "rtx", 120, 32, 1792, 209.5, _BLACKWELL, _SUMMED),
        _card("h100", "cuda", 90, 80, 3350, 989.4, "NVIDIA, H100 Tensor Core GPU data sheet (SXM)", "FP16, dense"),
        _card("h200", "cuda", 90, 141, 4800, 989.4, "NVIDIA, H200 Tensor Core GPU data sheet (SXM)", "FP16, dense"),
    )
}  # fmt: skip
THIS = "this"


def find_device(name: str) -> Device:
    """The row of that name; `this` measures the machine, which takes about three seconds.

    Raises:
        RequestError: there is none; the message lists those there are.
    """
    if name == THIS:
        return this_device()
    if name not in DEVICES:
        raise RequestError(f"device {name!r} is unknown; allowed: {', '.join([*DEVICES, THIS])}, all")
    return DEVICES[name]


def this_device() -> Device:
    """This machine's CPU: its memory as the system tells it, its rates by measurement with all of its cores."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = total_bytes()
    with ThreadPoolExecutor(threads) as pool:
        bandwidth, macs, integer_macs = _bandwidth(pool, threads), _float_macs(), _integer_macs(pool, threads)
    return Device(
        THIS, f"this machine's CPU, {threads} threads", "cpu", total, max(0, total - available_bytes()), bandwidth,
        macs, integer_macs, None, True, "measured: a read of 256 MiB", "measured: numpy's product; int8 in registers",
    )  # fmt: skip


def _bandwidth(pool: ThreadPoolExecutor, threads: int) -> float:
    """Bytes per second that all threads together read."""
    parts = np.array_split(np.zeros(_SWEEP_BYTES // 8, np.int64) + 1, threads)
    return _SWEEP_BYTES / _fastest(lambda: list(pool.map(np.bitwise_or.reduce, parts)))


def _float_macs() -> float:
    a = np.ones((512, 1024), np.float32)
    b = np.ones((1024, 1024), np.float32)
    return 512 * 1024 * 1024 / _fastest(lambda: a @ b)


def _integer_macs(pool: ThreadPoolExecutor, threads: int) -> float:
    from ..runtime import _native

    rounds = 500_000
    return threads * rounds * 1024 / _fastest(lambda: list(pool.map(_native.int8_multiply_adds, [rounds] * threads)))


def _fastest(call: object) -> float:
    """Seconds of the best of many calls: what the machine can do, not what else it did meanwhile."""
    assert callable(call)
    call()
    times: list[float] = []
    end = perf_counter() + _MEASURED_S
    while len(times) < _LEAST_ROUNDS or perf_counter() < end:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return min(times)
