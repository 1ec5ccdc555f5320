"""What the reference and a compiler need, and what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# peak memory of TensorRT-RTX per byte of a graph, and beside it: above all that was measured (docs/PLANNING.md)
COMPILER_FACTOR, COMPILER_BYTES = 3.6, 870 << 20


def compiler_bytes(graph_bytes: float) -> int:
    """What compiling a graph of this size takes."""
    return int(COMPILER_FACTOR * graph_bytes) + COMPILER_BYTES


def reference_bytes(source: Path) -> int:
    """Float32 weights of the chat checkpoint in this folder."""
    from ..model.checkpoint import SafetensorsSource  # needs torch, which the rest does without

    return 4 * sum(int(np.prod(shape)) for shape in SafetensorsSource(source).shapes().values())


def available_bytes() -> int:
    """Memory that is free for use; unlimited where the system does not say."""
    return _meminfo("MemAvailable")


def total_bytes() -> int:
    """Memory that the system has; unlimited where it does not say."""
    return _meminfo("MemTotal")


def _meminfo(key: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        return 1 << 62
