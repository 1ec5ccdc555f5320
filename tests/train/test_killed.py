"""A process that is killed at any moment goes on from its last checkpoint, to the weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from facrt.train.loop import CHECKPOINT, is_finished, load_trained, run_stage
from line_stage import SEED, SLOW_SCHEDULE, Line, SlowLine

TESTS = Path(__file__).parents[1]
PATIENCE_S = 120.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, str(TESTS / "line_stage.py"), "slow", str(folder)], env=environment)


def step_of(folder: Path) -> int:
    path = folder / CHECKPOINT
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    folder, reached = tmp_path / "killed", 0
    for _ in range(2):
        process = start(folder)
        deadline = time.monotonic() + PATIENCE_S
        while step_of(folder) <= reached:  # it has come further than the one before it
            assert process.poll() is None or is_finished(folder, SLOW_SCHEDULE)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert step_of(folder) > reached, "a killed process leaves a whole checkpoint"
        reached = step_of(folder)
    run_stage(SlowLine(), SLOW_SCHEDULE, SEED, folder)
    run_stage(Line(), SLOW_SCHEDULE, SEED, tmp_path / "whole")
    ours, theirs = Line().module, Line().module
    load_trained(folder, ours)
    load_trained(tmp_path / "whole", theirs)
    whole = theirs.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in ours.state_dict().items())
