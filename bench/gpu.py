"""A bundle on an NVIDIA GPU: TensorRT-RTX, TensorRT or ONNX Runtime's CUDA, whichever load; parity, speed, bandwidth.

Without --bundle, a small random model is exported for what the machine has. Never run on a GPU so far.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, check, finish, median
from facrt.errors import FacrtError
from facrt.export.build import build_plans
from facrt.export.parity import compare
from facrt.export.pipeline import ExportRequest, checkpoint_folder, export
from facrt.model.settings import GenerationSettings
from facrt.runtime import cuda
from facrt.runtime.engine import Engine, load
from facrt.runtime.sampling import SpeechSampling

TARGETS = {"tensorrt_rtx": "rtx", "tensorrt": "cuda", "onnxruntime-cuda": "cuda"}
JETSON = {87: "orin", 101: "thor", 110: "thor"}
BACKENDS = {"tensorrt_rtx": "tensorrt", "tensorrt": "tensorrt", "onnxruntime-cuda": "cuda"}
BANDWIDTH_BYTES = 256 << 20
CACHED = 200  # positions before the steps that are timed
STEP_LIMIT, GROUP_LIMIT = 1.5, 1.5  # times the bandwidth limit measured here


def bandwidth_gb_s(rounds: int = 9) -> float:
    """Device memory, read and written by copies: bytes moved per second."""
    one, two, stream = cuda.Memory(BANDWIDTH_BYTES), cuda.Memory(BANDWIDTH_BYTES), cuda.Stream()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        stream.copy(two.address, one.address, BANDWIDTH_BYTES)
        stream.wait()
        seconds.append(time.perf_counter() - started)
    return 2 * BANDWIDTH_BYTES / median(seconds[1:]) / 1e9


def weight_bytes(engine: Engine, component: str) -> int:
    manifest = engine.bundle.manifest
    stem = manifest.graphs[component]
    return sum(entry.size_bytes for name, entry in manifest.files.items() if name.startswith(stem))


def speed(engine: Engine, rounds: int, gigabytes_per_s: float) -> dict[str, float]:
    """Milliseconds of a backbone step and of a group, beside what reading their weights takes."""
    random, wide = np.random.default_rng(0), engine.config.text.hidden_size
    rows = (random.standard_normal((CACHED, wide)) * 0.02).astype(np.float32)
    engine.backbone.truncate(0)
    engine.backbone(rows)
    engine.speech_head.reset()
    sampling = SpeechSampling(GenerationSettings())
    engine.speech_head.prefill(rows[:20], sampling)
    steps, groups = [], []
    for _ in range(rounds + 3):
        started = time.perf_counter()
        engine.backbone(rows[:1])
        between = time.perf_counter()
        engine.speech_head.group(rows[0], sampling)
        steps.append((between - started) * 1e3)
        groups.append((time.perf_counter() - between) * 1e3)
    head = engine.config.group_size * weight_bytes(engine, "speech_head") + weight_bytes(engine, "speech_upsampling")
    return {
        "step_ms": median(steps[3:]),
        "group_ms": median(groups[3:]),
        "step_limit_ms": weight_bytes(engine, "backbone") / gigabytes_per_s / 1e6,
        "group_limit_ms": head / gigabytes_per_s / 1e6,
    }


def measure(library: str, folder: Path | None, source: str, precision: str, rounds: int, capability: int,
            gigabytes_per_s: float) -> dict[str, Any]:  # fmt: skip
    """One library's figures; its faults are part of the report."""
    backend = BACKENDS[library]
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            folder = Path(scratch) / "bundle"
            target = TARGETS[library] if library == "tensorrt_rtx" else JETSON.get(capability, TARGETS[library])
            export(ExportRequest(source, folder, target, precision, max_positions=1024))
        if library == "tensorrt":
            build_plans(folder)
        engine = load(folder, backend=backend, check_hashes=False)
        path, _ = checkpoint_folder(source)
        report = compare(folder, path, None, None, backend=backend)
        return {"parity": report, **speed(engine, rounds, gigabytes_per_s)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--source", default="nano", help="the checkpoint that is exported and compared with")
    parser.add_argument("--bundle", type=Path, help="one that is there, of that checkpoint")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    try:
        device = cuda.device()
    except FacrtError as error:
        sys.stderr.write(f"bench/gpu.py: {' '.join(str(error).split())}\n")
        sys.exit(2)
    gigabytes_per_s = bandwidth_gb_s()
    report: dict[str, Any] = {
        "gpu": {"capability": device.capability, "integrated": device.is_integrated, "memory": device.total_bytes},
        "bandwidth_gb_s": gigabytes_per_s, "results": {}, "not_run": {},
    }  # fmt: skip
    for library in TARGETS:
        try:
            report["results"][library] = measure(
                library, options.bundle, options.source, options.precision, options.rounds, device.capability,
                gigabytes_per_s,
            )  # fmt: skip
        except (FacrtError, RuntimeError) as error:
            report["not_run"][library] = " ".join(str(error).split())
    checks = [check("device memory", gigabytes_per_s, "GB/s")]
    for library, found in report["results"].items():
        for name, limit in (("step", STEP_LIMIT), ("group", GROUP_LIMIT)):
            ratio = found[f"{name}_ms"] / found[f"{name}_limit_ms"]
            checks.append(check(f"{library}: {name}", found[f"{name}_ms"], "ms"))
            checks.append(check(f"{library}: {name} over a read of its weights", ratio, "x", limit))
        checks.append(check(f"{library}: rows out of parity", sum(not r["ok"] for r in found["parity"]["rows"]), "", 0))
    for library, why in report["not_run"].items():
        sys.stderr.write(f"not run: {library}: {why}\n")
    finish({**report, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
