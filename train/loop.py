"""The training loop of every stage: resumable, seeded step by step, logged, on one process or several."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import FacrtError, RequestError
from . import parallel

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
CHECKPOINT_SECONDS = 40.0
LOG_SECONDS = 5.0
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a stage is optimized: AdamW, linear warm-up, cosine from `lr` to `final_lr`."""

    steps: int
    batch_size: int  # of one process
    lr: float
    final_lr: float
    warmup: int  # steps
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0  # largest norm of a gradient
    loss_limit: float = math.inf  # a step with a larger loss is skipped
    ema: float = 0.0  # decay of the averaged weights that are kept in the end; 0: the last ones

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


class Stage(Protocol):
    """What a stage trains and on what."""

    @property
    def name(self) -> str: ...

    @property
    def module(self) -> nn.Module:
        """Parameters with requires_grad are trained; all of its state is kept."""
        ...

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and figures for the log; all chance comes from `draw` and torch's global generator,
        which is seeded alike."""
        ...


@dataclass(slots=True)
class _State:
    step: int
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None
    seconds: float


def run_stage(
    stage: Stage, schedule: Schedule, seed: int, folder: Path, progress: Progress = lambda *_: None, until: int = 0
) -> None:
    """Trains a stage to its end, from where `folder` was left.

    A checkpoint is written every 40 s by rename, so a run that is killed loses less than a minute. The data and the
    chance of each step depend on the seed, the step and the process alone: a resumed run repeats what was lost, and
    the same seed gives the same losses.

    Args:
        stage: what to train.
        schedule: how.
        seed: of data order, dropout, noise.
        folder: takes `checkpoint.pt` and `log.jsonl`.
        progress: called after each step.
        until: stop after this step, with a checkpoint; 0: at the end.

    Raises:
        FacrtError: the folder cannot be written, or the loss is no number for 50 steps on end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in stage.module.parameters() if p.requires_grad]
    state = _resume(stage, schedule, folder, trained)
    stage.module.train()
    last = min(schedule.steps, until) if until else schedule.steps
    figures: dict[str, float] = {}
    started, saved, logged, bad = time.monotonic() - state.seconds, time.monotonic(), 0.0, 0
    while state.step < last:
        draw = torch.Generator().manual_seed(_step_seed(seed, state.step))
        torch.manual_seed(_step_seed(seed, state.step) + 1)
        loss, figures = stage.loss(state.step, draw)
        norm = _backward(loss, trained, schedule)
        value = float(loss.detach())
        usable = bool(torch.isfinite(norm)) and math.isfinite(value) and value < schedule.loss_limit
        if usable:
            for group in state.optimizer.param_groups:
                group["lr"] = schedule.lr_at(state.step)
            state.optimizer.step()
            _average(state, schedule, stage.module)
        state.optimizer.zero_grad(set_to_none=True)
        bad = 0 if usable else bad + 1
        if bad == 50:
            raise FacrtError(
                f"stage {stage.name}: the loss was no usable number for 50 steps; lower its lr in the recipe"
            )
        state.step += 1
        state.seconds = time.monotonic() - started
        progress(state.step, schedule.steps)
        if time.monotonic() - logged > LOG_SECONDS or state.step == last:
            _log(folder, stage.name, state, {"loss": value, "norm": float(norm), **figures})
            logged = time.monotonic()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(stage, state, folder)
            saved = time.monotonic()
    _save(stage, state, folder)
    stage.module.eval()


def is_finished(folder: Path, schedule: Schedule) -> bool:
    """Whether a stage's folder holds its last step."""
    path = folder / CHECKPOINT
    return path.exists() and int(_load(path)["step"]) >= schedule.steps


def load_trained(folder: Path, module: nn.Module) -> None:
    """Fills `module` with what a stage has trained: its averaged weights where it keeps them.

    Raises:
        RequestError: the stage has not been run.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise RequestError(f"stage {folder.name} has not been run: {path} is missing")
    raw = _load(path)
    module.load_state_dict(raw["module"])
    if raw["average"] is not None:
        module.load_state_dict(raw["average"], strict=False)
    module.eval()


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) * 64 + 2 * parallel.rank()


def _backward(loss: Tensor, trained: list[nn.Parameter], schedule: Schedule) -> Tensor:
    loss.backward()
    parallel.average_gradients(trained)
    return nn.utils.clip_grad_norm_(trained, schedule.clip)


def _average(state: _State, schedule: Schedule, module: nn.Module) -> None:
    if state.average is None:
        return
    decay = min(schedule.ema, (1 + state.step) / (10 + state.step))
    for name, parameter in module.named_parameters():
        if name in state.average:
            state.average[name].lerp_(parameter.detach(), 1 - decay)


def _resume(stage: Stage, schedule: Schedule, folder: Path, trained: list[nn.Parameter]) -> _State:
    decayed = [p for p in trained if p.ndim > 1]
    plain = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=schedule.lr, betas=schedule.betas)
    average = None
    if schedule.ema:
        average = {n: p.detach().clone() for n, p in stage.module.named_parameters() if p.requires_grad}
    state = _State(0, optimizer, average, 0.0)
    path = folder / CHECKPOINT
    if path.exists():
        raw = _load(path)
        stage.module.load_state_dict(raw["module"])
        optimizer.load_state_dict(raw["optimizer"])
        state.step, state.seconds = raw["step"], raw["seconds"]
        if average is not None:
            average.update(raw["average"])
    return state


def _load(path: Path) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise FacrtError(f"{path} is no readable checkpoint ({str(error).splitlines()[0]}); remove it") from None
    return raw


def _save(stage: Stage, state: _State, folder: Path) -> None:
    if parallel.rank():
        return
    partial = folder / f".{CHECKPOINT}.partial"
    content = {
        "step": state.step, "seconds": state.seconds, "module": stage.module.state_dict(),
        "optimizer": state.optimizer.state_dict(), "average": state.average,
    }  # fmt: skip
    try:
        torch.save(content, partial)
        partial.replace(folder / CHECKPOINT)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise FacrtError(f"{folder} cannot be written ({str(error).splitlines()[0]}); make room there") from None


def _log(folder: Path, name: str, state: _State, figures: dict[str, float]) -> None:
    if parallel.rank():
        return
    row = {"stage": name, "step": state.step, "seconds": round(state.seconds, 1)}
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, **{key: round(value, 5) for key, value in figures.items()}}) + "\n")
