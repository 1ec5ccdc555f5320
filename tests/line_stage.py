"""A stage that learns a straight line: what tests of the training loop run, here and in processes of their own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from facrt.train import loop, parallel
from facrt.train.loop import Schedule, run_stage
from torch import Tensor, nn


class Line:
    """A straight line to learn, with chance from both generators."""

    name = "line"

    def __init__(self, fault: float | None = None, at: frozenset[int] = frozenset()) -> None:
        torch.manual_seed(5)
        self.module: nn.Module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        self._fault, self._at = fault, at

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(8, 3, generator=draw)
        error = (self.module(x).squeeze(1) - x.sum(1)).square().mean()
        return (error * self._fault if step in self._at and self._fault is not None else error), {"rows": 8.0}


class SlowLine(Line):
    """Takes its time, so that it can be killed."""

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        time.sleep(0.01)
        return super().loss(step, draw)


SCHEDULE = Schedule(steps=40, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=4, ema=0.9)
SLOW_SCHEDULE = Schedule(steps=200, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=4, ema=0.9)
SEED = 3


def main(what: str, folder: Path) -> None:
    """What a process of its own runs.

    `slow`: one stage with a checkpoint every 0.2 s. `parallel`: each process also keeps its own weights, and the names
    of the threads that are left in the end.
    """
    torch.set_num_threads(1)
    if what == "slow":
        loop.CHECKPOINT_SECONDS = 0.2
        run_stage(SlowLine(), SLOW_SCHEDULE, SEED, folder)
        return
    with parallel.processes():
        stage, rank = Line(), parallel.rank()
        run_stage(stage, SCHEDULE, SEED, folder / str(rank))
        torch.save(stage.module.state_dict(), folder / f"weights-{rank}.pt")
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads-{rank}.txt").write_text("\n".join(threads))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
