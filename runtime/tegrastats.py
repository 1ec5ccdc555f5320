"""Power, clocks and temperatures of a Jetson board: lines of NVIDIA's `tegrastats`."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERVAL_MS = 100


def parse_line(line: str) -> dict[str, Any]:
    """One line's figures; what a line does not say is left out.

    Returns:
        {"ram_used_mb", "ram_total_mb", "cpu_percent" and "cpu_mhz" (lists over the cores that are on), "gpu_percent",
        "gpu_mhz", "memory_controller_percent", "temperature_c" and "power_mw" (by sensor and rail, present values)}.
    """
    found: dict[str, Any] = {}
    if ram := re.search(r"\bRAM (\d+)/(\d+)MB", line):
        found["ram_used_mb"], found["ram_total_mb"] = map(int, ram.groups())
    if cpu := re.search(r"\bCPU \[([^\]]*)\](?:@(\d+))?", line):
        cores = re.findall(r"(\d+)%(?:@(\d+))?", cpu[1])
        found["cpu_percent"] = [int(percent) for percent, _ in cores]
        found["cpu_mhz"] = [int(mhz or cpu[2] or 0) for _, mhz in cores]
    if gpu := re.search(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        found["gpu_percent"] = int(gpu[1])
        if gpu[2]:
            found["gpu_mhz"] = int(gpu[2])
    if memory := re.search(r"\bEMC_FREQ (\d+)%", line):
        found["memory_controller_percent"] = int(memory[1])
    if temperatures := re.findall(r"\b([\w-]+)@(-?\d+(?:\.\d+)?)C\b", line):
        found["temperature_c"] = {name: float(value) for name, value in temperatures}
    if rails := re.findall(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)", line):
        found["power_mw"] = {name: int(now) for name, now, _ in rails}
    return found


def summarize(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and peaks of many lines' figures; empty where there is no line."""
    summary: dict[str, Any] = {}
    for name in ("gpu_percent", "gpu_mhz", "memory_controller_percent", "ram_used_mb"):
        values = [sample[name] for sample in samples if name in sample]
        if values:
            summary[name] = {"mean": sum(values) / len(values), "peak": max(values)}
    for name in ("power_mw", "temperature_c"):
        keys = {key for sample in samples for key in sample.get(name, {})}
        for key in sorted(keys):
            values = [sample[name][key] for sample in samples if key in sample.get(name, {})]
            summary.setdefault(name, {})[key] = {"mean": sum(values) / len(values), "peak": max(values)}
    return summary


@contextmanager
def sampled() -> Iterator[list[dict[str, Any]]]:
    """Collects figures while the block runs; none where this machine has no `tegrastats`."""
    samples: list[dict[str, Any]] = []
    program = shutil.which("tegrastats")
    if program is None:
        yield samples
        return
    with subprocess.Popen([program, "--interval", str(INTERVAL_MS)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout
        thread = threading.Thread(target=lambda: samples.extend(map(parse_line, lines)), daemon=True)
        thread.start()
        try:
            yield samples
        finally:
            process.terminate()
            thread.join()
