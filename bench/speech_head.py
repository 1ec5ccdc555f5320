"""The speech head's refinement loop: native precisions beside ONNX Runtime, PyTorch and a plain read of its bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, at_least, check, finish, interleaved_ms, median, tell, timed_ms
from facrt.model.config import ChatConfig
from facrt.runtime import _native
from heads import (
    GROUP,
    MAX_POSITIONS,
    WIDE,
    Native,
    Onnx,
    RandomHead,
    Reference,
    TracedHead,
    prefill_multiply_adds,
    real_config,
    run_group,
    run_prefill,
    weight_bytes_per_sub_step,
)

PREFILL = 100  # backbone positions: 496 sub-positions at once, and the last group
REAL_TIME_MS = 40.0  # per sub-step, at 25 tokens a second
CACHES = ("fp32", "fp16", "int8")
SWEEP_LIMITS = {50: 1.35, 500: 1.5}
# Native -> the form of ONNX Runtime with the same weights and the same arithmetic, or blocks. An fp32 export of bf16
# numbers, as the released weights are, stores them in bf16; fp32 is for numbers that need it.
SAME_IN_ONNX = {"fp32": "fp32", "bf16": "fp32", "int8": "int8", "int4_32": "int4_32", "int4_128": "int4_128"}
ONNX_LEAST = {"bf16": 1.5, "int8": 1.2, "int4_128": 1.5}  # at KV 500, times as fast as the same in ONNX Runtime
PREFILL_LEAST = {"bf16": 1.0, "int8": 1.0, "int4_32": 1.0, "int4_128": 1.0}
TORCH_LEAST = {"int8": 4.0, "int4_32": 6.0, "int4_128": 6.0}
DTYPES = {"torch_fp32": torch.float32, "torch_bf16": torch.bfloat16}
INTEGERS = ("int8", "int4_32", "int4_128")
Checks = list[dict[str, Any]]


def multiply_add_rate(threads: int) -> float:
    """int8 multiply-adds per second of all threads, in registers."""
    rounds = 500_000
    with ThreadPoolExecutor(threads) as pool:
        run: Callable[[], object] = lambda: list(pool.map(_native.int8_multiply_adds, [rounds] * threads))  # noqa: E731
        run()
        return threads * rounds * 1024 / (median([timed_ms(run) for _ in range(5)]) * 1e-3)


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that computes all the time on the first of this process's cores."""
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_checks(config: ChatConfig, native: dict[str, Native], ms: dict[str, float], length: int) -> Checks:
    checks = []
    step = {name: value / GROUP for name, value in ms.items() if not name.startswith("sweep")}
    for name, value in step.items():
        checks.append(check(f"KV {length}: {name}, sub-step", value, "ms"))
    for precision, form in native.items():
        own = step[f"native {precision}"]
        cache_bytes = form.loop.cache_bytes_per_position / GROUP * length
        wanted_bytes = weight_bytes_per_sub_step(config, precision) + cache_bytes
        sweep = ms[f"sweep of native {precision}"] * wanted_bytes / form.size_bytes
        limit = SWEEP_LIMITS.get(length)
        checks.append(check(f"KV {length}: native {precision} / read of its bytes", own / sweep, "ratio", limit))
        checks.append(check(f"KV {length}: read of native {precision}'s bytes", wanted_bytes / sweep / 1e6, "GB/s"))
        for other, value in step.items():
            if other.startswith("onnx"):
                same = length == 500 and other == f"onnx {SAME_IN_ONNX[precision]}"
                least = ONNX_LEAST.get(precision) if same else None
            else:
                least = TORCH_LEAST.get(precision) if other == "torch bf16" else None
            if not other.startswith("native"):
                checks.append(at_least(f"KV {length}: {other} / native {precision}", value / own, "ratio", least))
    return checks


def checks_at(
    config: ChatConfig, native: dict[str, Native], forms: dict[str, Any], u: np.ndarray, length: int, rounds: int
) -> Checks:
    """A step of every form with that many sub-positions in its cache."""
    position = length // GROUP
    calls: dict[str, Callable[[], object]] = {}
    for name, form in forms.items():
        form.fill(u[:position])
        calls[name] = lambda form=form: form.group(position, u[-1])
        if name.startswith("native"):
            calls[f"sweep of {name}"] = form.loop.read_weights
    return step_checks(config, native, interleaved_ms(calls, rounds), length)


def prefill_checks(config: ChatConfig, forms: dict[str, Any], u: np.ndarray, threads: int) -> Checks:
    """A prompt; PyTorch's, of minutes where the processor has no bfloat16 products, is left out."""
    forms = {name: form for name, form in forms.items() if not name.startswith("torch")}
    ms = interleaved_ms({name: (lambda form=form: form.fill(u)) for name, form in forms.items()}, 3)
    rate = multiply_add_rate(threads)
    work = prefill_multiply_adds(config, len(u))
    checks = [check(f"prefill of {GROUP * len(u)} sub-positions: {name}", value, "ms") for name, value in ms.items()]
    for name, value in ms.items():
        precision = name.removeprefix("native ")
        if precision in INTEGERS:
            checks.append(at_least(f"prefill, {name}: share of the int8 rate", work / value * 1e3 / rate, "ratio", 0.5))
        same = f"onnx {SAME_IN_ONNX.get(precision)}"
        if same in ms:
            checks.append(
                at_least(f"prefill: {same} / {name}", ms[same] / value, "ratio", PREFILL_LEAST.get(precision))
            )
    checks.append(check("int8 multiply-adds in registers", rate * 1e-9, "10^9/s"))
    return checks


def thread_checks(native: dict[str, Native], u: np.ndarray, threads: int, rounds: int) -> Checks:
    """One core busy elsewhere, and one thread alone."""
    checks = []
    position = PREFILL
    for precision, form in native.items():
        run_prefill(form.loop, u[:position])
        step = lambda loop=form.loop: run_group(loop, position, u[-1])  # noqa: E731
        quiet = interleaved_ms({"step": step}, rounds)["step"]
        with busy_core():
            busy = interleaved_ms({"step": step}, rounds)["step"]
        name = f"KV {GROUP * position}: native {precision}, {threads} threads, one core busy elsewhere / quiet"
        checks.append(check(name, busy / quiet, "ratio", 2.3 if threads == 2 else None))
        alone = form.open(1)
        run_prefill(alone, u[:position])
        value = interleaved_ms({"step": lambda loop=alone: run_group(loop, position, u[-1])}, rounds)["step"] / GROUP
        limit = REAL_TIME_MS if precision.startswith("int4") else None
        checks.append(check(f"KV {GROUP * position}: native {precision}, one thread, sub-step", value, "ms", limit))
    return checks


def cache_checks(native: dict[str, Native], u: np.ndarray, threads: int, rounds: int) -> Checks:
    """Bytes, time and error of each form of the KV cache, by the logits of the first group at 500 and at 2000."""
    checks = []
    for precision, form in native.items():
        loops = {cache: form.open(threads, cache) for cache in CACHES}
        for length in (500, 2000):
            position = length // GROUP
            logits, calls = {}, {}
            for cache, loop in loops.items():
                run_prefill(loop, u[:position])
                logits[cache] = loop.logits(0)
                calls[cache] = lambda loop=loop: run_group(loop, position, u[-1])  # noqa: B023
            for cache, value in interleaved_ms(calls, rounds).items():
                name = f"KV {length}: native {precision}, cache {cache}"
                error = np.linalg.norm(logits[cache] - logits["fp32"]) / np.linalg.norm(logits["fp32"])
                checks.append(check(f"{name}, sub-step", value / GROUP, "ms"))
                checks.append(check(f"{name}, error of the logits", float(error), "relative L2"))
    loops = {cache: next(iter(native.values())).open(threads, cache) for cache in CACHES}
    return checks + [
        check(f"cache {cache}: bytes per backbone position", loop.cache_bytes_per_position, "bytes")
        for cache, loop in loops.items()
    ]


def sampler_checks() -> Checks:
    """One pick with penalty over 1500 seen ids, temperature 0.8, top-p 0.9."""
    checks = []
    random = np.random.default_rng(2)
    for size, kind, spread, limit in (
        (6565, "peaked", 8.0, 30.0),
        (6565, "flat", 0.3, 150.0),
        (151936, "peaked", 8.0, 150.0),
        (151936, "flat", 0.3, 3000.0),
    ):
        rows = [(spread * random.standard_normal(size)).astype(np.float32) for _ in range(16)]
        sampler = _native.Sampler(0)
        sampler.remember(random.integers(0, size, 1500))
        options = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2}
        times = [timed_ms(lambda row=row: sampler.pick(row, **options)) for row in rows * 8]  # noqa: B023
        checks.append(check(f"sampler, {size} {kind} logits", 1e3 * median(times), "us", limit))
    return checks


def grouping_checks(native: dict[str, Native], folder: Path) -> Checks:
    """A group's 5 rows of 4096 with the text row; the table is stored projected, so nothing is multiplied."""
    rows = 6565
    table_path = folder / "table"
    np.random.default_rng(3).standard_normal((rows, WIDE)).astype(np.float32).tofile(table_path)
    table = _native.EmbeddingTable(table_path, rows, WIDE, "float32")
    groups = np.random.default_rng(4).integers(0, rows, (256, GROUP))
    text, out = np.ones(WIDE, np.float32), np.zeros(WIDE, np.float32)
    for ids in groups:
        table.group_average_into(ids, text, out)
    us = 1e3 * median([timed_ms(lambda ids=ids: table.group_average_into(ids, text, out)) for ids in groups])
    checks = [check("grouping, 5 rows of 4096, projection and average included", us, "us")]
    form = next(iter(native.values()))
    one_thread = form.open(1)
    sweep_us = 1e3 * median([timed_ms(one_thread.read_weights) for _ in range(3)]) * GROUP * WIDE * 4 / form.size_bytes
    return [*checks, check("grouping / one thread's plain read of its rows", us / sweep_us, "ratio")]


def make_forms(options: Any, head: RandomHead, config: ChatConfig, folder: Path) -> tuple[dict[str, Native], dict]:
    native = {p: Native(head, config, p, folder, options.threads) for p in options.precisions}
    forms: dict[str, Any] = {f"native {p}": n for p, n in native.items()}
    graphs = [other.removeprefix("onnx_") for other in options.beside if other not in DTYPES]
    if graphs:
        traced = TracedHead(head, config)
        forms |= {f"onnx {p}": Onnx(traced, p, folder, options.threads) for p in graphs}
    dtypes = [other for other in options.beside if other in DTYPES]
    forms |= {other.replace("_", " "): Reference(head, config, DTYPES[other]) for other in dtypes}
    return native, forms


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8", "int4_32", "int4_128"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[50, 500, 2000], help="sub-positions in the cache")
    others = ["onnx_fp32", *(f"onnx_{precision}" for precision in INTEGERS), *DTYPES]
    parser.add_argument("--beside", nargs="*", default=[*others[:4], "torch_bf16"], choices=others)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])  # before any thread
    torch.set_num_threads(options.threads)
    config = real_config(options.layers)
    head = RandomHead(config)
    u = np.random.default_rng(1).standard_normal((MAX_POSITIONS, WIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native, forms = make_forms(options, head, config, folder)
        integers = {precision: form for precision, form in native.items() if precision in ("fp32", "int8")}
        checks: Checks = []
        for part in (
            *(partial(checks_at, config, native, forms, u, n, options.rounds) for n in options.lengths),
            partial(prefill_checks, config, forms, u[:PREFILL], options.threads),
            partial(thread_checks, native, u, options.threads, options.rounds),
            partial(cache_checks, integers or native, u, options.threads, options.rounds),
            sampler_checks,
            partial(grouping_checks, native, folder),
        ):
            found = part()
            checks += found
            if options.json:  # it takes long, and what is stopped should not be lost
                tell(found)
        isa = next(iter(native.values())).loop.isa
    finish({"isa": isa, "layers": options.layers, "threads": options.threads, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
