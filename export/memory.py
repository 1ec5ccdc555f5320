"""What the reference needs and what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def reference_bytes(source: Path) -> int:
    """Float32 weights of the chat checkpoint in this folder."""
    from ..model.checkpoint import SafetensorsSource  # with torch, which a device that only builds has not

    return 4 * sum(int(np.prod(shape)) for shape in SafetensorsSource(source).shapes().values())


def available_bytes() -> int:
    """Memory that is free for use; unlimited where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 62
