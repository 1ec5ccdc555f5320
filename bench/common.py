"""What every benchmark shares: timing, the machine's description, the JSON that is printed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def arguments(caption: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`, which every benchmark takes."""
    parser = argparse.ArgumentParser(description=caption)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def timed_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


REST_S = 0.1  # a runtime's threads spin on after a call: ONNX Runtime's were seen to for 60 ms, PyTorch's for 13


def interleaved_ms(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of several calls, taken in turn so that a machine's drift meets all of them, each after a rest."""
    for call in calls.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(REST_S)
            samples[name].append(timed_ms(call))
    return {name: median(values) for name, values in samples.items()}


def check(name: str, value: float, unit: str, limit: float | None = None) -> dict[str, Any]:
    """One asked-for number; `limit` is the most it may be."""
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": limit is None or value <= limit}


def at_least(name: str, value: float, unit: str, limit: float | None = None) -> dict[str, Any]:
    """One asked-for number; `limit` is the least it may be."""
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": limit is None or value >= limit}


def finish(report: dict[str, Any], as_json: bool) -> None:
    """Prints a report: JSON on stdout, or lines on stderr."""
    report = {"machine": {"processor": platform.machine(), "cores": os.cpu_count()}, **report}
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    tell(report["checks"])


def tell(checks: Sequence[dict[str, Any]]) -> None:
    """Lines on stderr."""
    for row in checks:
        limit = "" if row["limit"] is None else f"  (limit {row['limit']}: {'ok' if row['ok'] else 'MISSED'})"
        sys.stderr.write(f"{row['name']:<60} {row['value']:10.3f} {row['unit']}{limit}\n")
