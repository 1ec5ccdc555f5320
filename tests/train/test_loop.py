"""The training loop: resumed equals uninterrupted, the same seed gives the same losses, broken losses are skipped."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from facrt.errors import FacrtError, RequestError
from facrt.train import loop
from facrt.train.compute import Compute
from facrt.train.loop import Schedule, is_finished, load_trained, run_stage
from line_stage import SCHEDULE, Line
from torch import Tensor, nn


def weights(folder: Path) -> dict[str, Tensor]:
    stage = Line()
    load_trained(folder, stage.module)
    return stage.module.state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run_stage(Line(), SCHEDULE, 3, tmp_path / "whole")
    for stop in (1, 13, 14, 40):
        run_stage(Line(), SCHEDULE, 3, tmp_path / "pieces", until=stop)
    assert same(tmp_path / "whole", tmp_path / "pieces")
    assert is_finished(tmp_path / "pieces", SCHEDULE)


def test_seeds(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_stage(Line(), SCHEDULE, seed, tmp_path / name)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    class Dying(Line):
        def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            if step == 23:
                raise Killed
            return super().loss(step, draw)

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        run_stage(Dying(), SCHEDULE, 3, tmp_path / "killed")
    assert not is_finished(tmp_path / "killed", SCHEDULE)
    run_stage(Line(), SCHEDULE, 3, tmp_path / "killed")
    run_stage(Line(), SCHEDULE, 3, tmp_path / "whole")
    assert same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("fault", [math.nan, math.inf, 1e9])
def test_a_broken_step_changes_nothing(tmp_path: Path, fault: float) -> None:
    schedule = Schedule(steps=12, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=1, loss_limit=1e6)
    run_stage(Line(fault, frozenset(range(12))), schedule, 3, tmp_path / "broken")
    untouched = Line().module.state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in weights(tmp_path / "broken").items())


def test_a_loss_that_stays_broken_is_an_error(tmp_path: Path) -> None:
    schedule = Schedule(steps=200, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=1)
    with pytest.raises(FacrtError, match="lower its lr"):
        run_stage(Line(math.nan, frozenset(range(200))), schedule, 3, tmp_path)


def test_log(tmp_path: Path) -> None:
    run_stage(Line(), SCHEDULE, 3, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 40
    assert {"stage", "step", "seconds", "loss", "norm", "rows"} <= set(rows[-1])


def test_schedule() -> None:
    assert SCHEDULE.lr_at(0) == pytest.approx(1e-2 / 4)
    assert SCHEDULE.lr_at(4) == pytest.approx(1e-2)
    assert SCHEDULE.lr_at(40) == pytest.approx(1e-3)
    rates = [SCHEDULE.lr_at(step) for step in range(4, 41)]
    assert rates == sorted(rates, reverse=True)


def test_what_was_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has not been run"):
        load_trained(tmp_path / "line", nn.Linear(1, 1))


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(FacrtError, match="remove it"):
        run_stage(Line(), SCHEDULE, 3, tmp_path)


class Twice(Line):
    """Two batches as one."""

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        first, second = (super(Twice, self).loss(step, draw)[0] for _ in range(2))
        return (first + second) / 2, {}


def test_micro_batches_are_averaged(tmp_path: Path) -> None:
    run_stage(Twice(), SCHEDULE, 3, tmp_path / "whole")
    run_stage(Line(), SCHEDULE, 3, tmp_path / "micro", compute=Compute(device="cpu", accumulate=2))
    run_stage(Line(), SCHEDULE, 3, tmp_path / "one")
    whole, micro = weights(tmp_path / "whole"), weights(tmp_path / "micro")
    for name in whole:
        torch.testing.assert_close(micro[name], whole[name], rtol=1e-4, atol=1e-5)
    assert not same(tmp_path / "one", tmp_path / "micro")


class Constant(Line):
    """Nothing of the module has a part in the loss."""

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return torch.ones(()), {}


def test_a_batch_that_teaches_nothing_changes_nothing(tmp_path: Path) -> None:
    run_stage(Constant(), Schedule(steps=3, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=1), 3, tmp_path)
    untouched = Line().module.state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in weights(tmp_path).items())


def test_long_checkpoints_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long writing takes, at most a tenth of the time goes there."""
    clock = [0.0]
    saves: list[float] = []
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    class Ticking(Line):
        def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clock[0] += 10
            return super().loss(step, draw)

    def save(*_: object) -> None:
        saves.append(clock[0])
        clock[0] += 30

    monkeypatch.setattr(loop, "_save", save)
    schedule = Schedule(steps=200, batch_size=8, lr=1e-2, final_lr=1e-3, warmup=1)
    run_stage(Ticking(), schedule, 3, tmp_path)
    assert saves[0] == 50, "the first one comes after 40 s"
    gaps = [later - earlier - 30 for earlier, later in itertools.pairwise(saves[:-1])]
    assert gaps
    assert set(gaps) == {310}
