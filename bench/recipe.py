"""Hours that a recipe takes on this machine: a few steps of every stage from new, each times the stage's steps.

Nothing of it is a trained model: a stage begins where the few steps before it ended. The time of a step hardly depends
on that. One process, as `facrt train run` is; saving checkpoints and the caches of features are not counted.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import arguments, check, finish, median
from facrt.train.loop import run_stage
from facrt.train.recipe import read_recipe
from facrt.train.run import Run
from training import progress

SECONDS_PER_HOUR = 3600
WARMUP_STEPS = 3


def seconds_per_step(run: Run, name: str, steps: int) -> float:
    """The median over a stage's first steps."""
    ends: list[float] = []
    run_stage(
        run.stage(name), run.recipe.schedules[name], run.recipe.seed, run.folder / name,
        lambda *_: ends.append(time.perf_counter()), until=steps, compute=run.recipe.compute,
    )  # fmt: skip
    between = [later - earlier for earlier, later in itertools.pairwise(ends)]
    return median(between[WARMUP_STEPS:])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="nano")
    parser.add_argument("--conversations", type=int, default=200, help="that are spoken for it")
    parser.add_argument("--steps", type=int, default=20, help="of each stage")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe)
    wanted = recipe.data["train"] + recipe.data["read_aloud"]
    made = dict.fromkeys(("train", "read_aloud", "splices"), options.conversations)
    few = replace(recipe, data={**recipe.data, **made})
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(few, Path(folder) / "run", show=progress())
        started = time.perf_counter()
        spoken = len(run.conversations)
        each = (time.perf_counter() - started) / spoken
        rows.append({"part": "data, at most", "steps": wanted, "seconds_per_step": each})
        for name in run.stages:
            if name == "alignment":  # the first stage that takes them
                started = time.perf_counter()
                spliced = len(run.splices)
                each = (time.perf_counter() - started) / spliced
                rows.append({"part": "splices", "steps": recipe.data["splices"], "seconds_per_step": each})
            each = seconds_per_step(run, name, options.steps)
            rows.append({"part": name, "steps": recipe.schedules[name].steps, "seconds_per_step": each})
    for row in rows:
        each, steps = row["seconds_per_step"], row["steps"]
        row["hours"] = steps * each / SECONDS_PER_HOUR
        sys.stderr.write(f"{row['part']:<14} {steps:>6} x {each:6.3f} s = {row['hours']:5.2f} h\n")
    hours = sum(row["hours"] for row in rows)
    report = {"recipe": str(options.recipe), "timed_steps": options.steps, "parts": rows, "hours": hours}
    finish({**report, "checks": [check("the whole recipe", hours, "hours")]}, options.json)


if __name__ == "__main__":
    main()
