"""Two processes under torchrun learn what one learns from both of their batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from facrt.train.loop import load_trained, run_stage
from facrt.train.prefetch import step_seed
from line_stage import SCHEDULE, SEED, Line
from torch import Tensor

TESTS = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


class Both(Line):
    """The mean over the batches of two processes."""

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        parts = []
        for rank in (0, 1):
            chance = step_seed(SEED, step, rank)
            torch.manual_seed(chance + 1)
            parts.append(super().loss(step, torch.Generator().manual_seed(chance))[0])
        return (parts[0] + parts[1]) / 2, {}


def test_two_processes_equal_one_with_both_batches(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [*TORCHRUN, str(TESTS / "line_stage.py"), "parallel", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == ["checkpoint.pt", "log.jsonl"]
    assert not list((tmp_path / "1").iterdir()), "only the first process writes"
    left = [(tmp_path / f"threads-{rank}.txt").read_text().split() for rank in (0, 1)]
    assert not [name for names in left for name in names if "gloo" in name], "a thread that may outlive the interpreter"
    run_stage(Both(), SCHEDULE, SEED, tmp_path / "both")
    averaged, alone = Line().module, Line().module
    load_trained(tmp_path / "0", averaged)
    load_trained(tmp_path / "both", alone)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(averaged.state_dict()[name], value, rtol=1e-4, atol=1e-5)
