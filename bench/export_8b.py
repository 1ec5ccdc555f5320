"""Exports a large checkpoint in a process of its own: peak memory, sizes, and the speed of the bundle that comes out.

python bench/make_checkpoint.py ckpt          # 17.6 GiB; --layers 2 and the like for a slice
python bench/export_8b.py ckpt --out bundle --precision int4 --json
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, check, finish, interleaved_ms
from facrt.export.sizes import weights
from facrt.runtime.engine import Engine, load
from facrt.runtime.native_backbone import NativeBackbone

PEAK_LIMIT_GIB = 8.0
STEP_LIMIT = 1.3  # times a plain read of the same bytes
CACHED = 200  # positions before the steps that are timed
BYTES_PER_WEIGHT = {"int8": 1.15, "int4": 0.7}


def export(source: Path, out: Path, precision: str, more: list[str]) -> dict[str, float]:
    """Runs the command line; seconds and peak resident memory (memory-mapped pages included) of that process."""
    command = [
        sys.executable,
        "-m",
        "facrt.cli",
        "export",
        str(source),
        "--out",
        str(out),
        "--no-verify",
        "--backbone",
        "native",
    ]
    started = time.perf_counter()
    subprocess.run([*command, "--precision", precision, *more], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": time.perf_counter() - started, "peak_gib": peak / 2**30}


def resident_gib() -> dict[str, float]:
    """Memory of this process that is its own, and file pages that it has mapped."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return {}
    return {line[0][:-1]: int(line[1]) / 2**20 for line in lines if line[0] in ("RssAnon:", "RssFile:")}


def steps(engine: Engine, rounds: int) -> dict[str, float]:
    """Milliseconds of a backbone step, and of a plain read of its weight file, in turn."""
    backbone = engine.backbone
    if not isinstance(backbone, NativeBackbone):
        raise SystemExit("the bundle has no native backbone, which is what memory bandwidth is measured with")
    wide = engine.config.text.hidden_size
    random = np.random.default_rng(0)
    backbone.truncate(0)
    backbone((random.standard_normal((CACHED, wide)) * 0.02).astype(np.float32))
    row = (random.standard_normal((1, wide)) * 0.02).astype(np.float32)
    weight_bytes = (engine.bundle.folder / engine.bundle.manifest.native["backbone"]).stat().st_size
    backbone.loop.read_weights()
    ms = interleaved_ms({"step": lambda: backbone(row), "read": backbone.loop.read_weights}, rounds)
    return {
        "step_ms": ms["step"], "limit_ms": ms["read"], "bytes": weight_bytes,
        "gigabytes_per_s": weight_bytes / ms["read"] / 1e6,
        "bytes_per_weight": weight_bytes / weights(engine.bundle.manifest.model)["backbone"].total,
    }  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the bundle; one that is there is measured as it is")
    parser.add_argument("--precision", default="int8", choices=sorted(BYTES_PER_WEIGHT))
    parser.add_argument("--set", action="append", default=[], metavar="COMPONENT=SCHEME")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report: dict[str, Any] = {"precision": options.precision, "set": options.set}
    checks = []
    if not options.out.exists():
        report["export"] = export(
            options.source, options.out, options.precision, [word for item in options.set for word in ("--set", item)]
        )
        checks.append(check("peak memory of the export", report["export"]["peak_gib"], "GiB", PEAK_LIMIT_GIB))
    engine = load(options.out, max_positions=1024, check_hashes=False)
    report["backbone"] = steps(engine, options.rounds)
    report["memory"] = resident_gib()
    reply = engine.respond(text="Where is the lift?", greedy=True, max_steps=4, synthesize=False)
    report["answer"] = {"text_ids": reply.text_ids, "num_speech_ids": len(reply.speech_ids)}
    limit = BYTES_PER_WEIGHT[options.precision]
    checks += [
        check("backbone, bytes per weight", report["backbone"]["bytes_per_weight"], "B", limit),
        check("bundle", engine.bundle.size_bytes / 2**30, "GiB"),
        check("backbone step", report["backbone"]["step_ms"], "ms"),
        check(
            "backbone step over a plain read of its bytes",
            report["backbone"]["step_ms"] / report["backbone"]["limit_ms"], "x", STEP_LIMIT,
        ),
    ]  # fmt: skip
    finish({**report, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
