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
from common import arguments, check, finish, median, timed_ms
from facrt.export.cost import num_weights, packed_bytes_per_weight
from facrt.runtime.engine import Engine, load

PEAK_LIMIT_GIB = 8.0
STEP_LIMIT = 1.3  # times a plain read of the same bytes
CACHED = 200  # positions before the steps that are timed
BYTES_PER_WEIGHT = {"int8": 1.15, "int4": 0.7}


def export(source: Path, out: Path, precision: str, more: list[str]) -> dict[str, float]:
    """Runs the command line; seconds and peak resident memory (memory-mapped pages included) of that process."""
    command = [sys.executable, "-m", "facrt.cli", "export", str(source), "--out", str(out), "--no-verify"]
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
    """Milliseconds of a backbone step, and of a plain read of as many bytes, in turn."""
    backbone, native = engine.backbone, getattr(engine.speech_head, "loop", None)
    if native is None:
        raise SystemExit("the bundle has no native speech head, which is what memory bandwidth is measured with")
    wide = engine.config.text.hidden_size
    random = np.random.default_rng(0)
    backbone.truncate(0)
    backbone((random.standard_normal((CACHED, wide)) * 0.02).astype(np.float32))
    row = (random.standard_normal((1, wide)) * 0.02).astype(np.float32)
    head_bytes = (engine.bundle.folder / engine.bundle.manifest.native["speech_head"]).stat().st_size
    native.read_weights()
    backbone(row)
    step, gigabytes_per_s = [], []
    for _ in range(rounds):
        step.append(timed_ms(lambda: backbone(row)))
        gigabytes_per_s.append(head_bytes / timed_ms(native.read_weights) / 1e6)
    bandwidth = median(gigabytes_per_s)
    graph = engine.bundle.graph_path("backbone")
    read_bytes = packed_bytes_per_weight(graph) * num_weights(graph)
    limit_ms = read_bytes / bandwidth / 1e6
    return {"step_ms": median(step), "gigabytes_per_s": bandwidth, "bytes": read_bytes, "limit_ms": limit_ms}


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
    weight_bytes = packed_bytes_per_weight(engine.bundle.graph_path("backbone"))
    limit = BYTES_PER_WEIGHT[options.precision]
    checks += [
        check("backbone, bytes per weight", weight_bytes, "B", limit),
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
