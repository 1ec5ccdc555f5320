"""What the reference needs and what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np


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
