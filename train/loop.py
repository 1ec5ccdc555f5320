"""The training loop of every stage: resumable, seeded step by step, logged, on one process or several."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import FacrtError, RequestError
from . import parallel
from .compute import ON_CPU, Compute
from .optimizer import Optimizer, make_optimizer
from .prefetch import Prepared, in_processes, step_seed

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
CHECKPOINT_SECONDS = 40.0
CHECKPOINT_SHARE = 0.1  # of the time, at most, is spent on checkpoints
LOG_SECONDS = 5.0
Progress = Callable[[int, int], None]  # steps done, steps in all
Loss = Callable[[], tuple[Tensor, Mapping[str, Tensor | float]]]
Figures = dict[str, Tensor | float]  # for the log; tensors stay on their device until they are written


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a stage is optimized: linear warm-up, then a cosine from `lr` to `final_lr`."""

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
    optimizer: str = "adamw"  # or muon: on the matrices of the layers, with AdamW on the rest

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

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss of one batch, float32, and figures for the log.

        All chance comes from `draw`, which is on the CPU so that a seed means the same on every device, and from
        torch's global generator, which is seeded alike. What is drawn is moved to the module's device.
        """
        ...


@runtime_checkable
class PreparingStage(Stage, Protocol):
    """A stage whose batches other processes can prepare."""

    def prepare(self, step: int, draw: torch.Generator) -> Any:
        """One batch, on the CPU."""
        ...

    def loss_of(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """`loss` of a batch that `prepare` gave."""
        ...


@dataclass(slots=True)
class _State:
    step: int
    optimizer: Optimizer
    average: dict[str, Tensor] | None
    seconds: float


def run_stage(
    stage: Stage,
    schedule: Schedule,
    seed: int,
    folder: Path,
    progress: Progress = lambda *_: None,
    until: int = 0,
    compute: Compute = ON_CPU,
) -> None:
    """Trains a stage to its end, from where `folder` was left.

    A checkpoint is written every 40 s by rename, so a run that is killed loses less than a minute; where writing one
    takes longer than 4 s, they are so far apart that they cost a tenth of the time. The data and the chance of each
    step depend on the seed, the step and the process alone: a resumed run repeats what was lost, and the same seed
    gives the same losses.

    Args:
        stage: what to train.
        schedule: how.
        seed: of data order, dropout, noise.
        folder: takes `checkpoint.pt` and `log.jsonl`.
        progress: called after each step.
        until: stop after this step, with a checkpoint; 0: at the end.
        compute: device, precision and micro-batches; the module is moved to the device.

    Raises:
        RequestError: `compute` asks for a device that is not there.
        FacrtError: the folder cannot be written, or the loss is no number for 50 steps on end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = compute.torch_device()
    stage.module.to(device)
    trained = [p for p in stage.module.parameters() if p.requires_grad]
    state = _resume(stage, schedule, folder)
    stage.module.train()
    last = min(schedule.steps, until) if until else schedule.steps
    started, saved, logged, bad = time.monotonic() - state.seconds, time.monotonic(), 0.0, 0
    pause = CHECKPOINT_SECONDS
    for losses in _losses(stage, seed, range(state.step, last), compute):
        torch.manual_seed(step_seed(seed, state.step, parallel.rank()) + 1)
        loss, figures = _backward(losses, compute, device)
        parallel.average_gradients(trained)
        norm = nn.utils.clip_grad_norm_(trained, schedule.clip)
        value = float(parallel.average(loss))
        usable = bool(torch.isfinite(norm)) and math.isfinite(value) and value < schedule.loss_limit
        if usable:
            state.optimizer.step(schedule.lr_at(state.step))
            _average(state, schedule, stage.module)
        state.optimizer.zero_grad()
        bad = 0 if usable else bad + 1
        if bad == 50:
            raise FacrtError(
                f"stage {stage.name}: the loss was no usable number for 50 steps; lower its lr in the recipe"
            )
        state.step += 1
        state.seconds = time.monotonic() - started
        progress(state.step, schedule.steps)
        if time.monotonic() - logged > LOG_SECONDS or state.step == last:
            _log(folder, stage.name, state, {"loss": value, "norm": norm, **figures})
            logged = time.monotonic()
        if time.monotonic() - saved > pause:
            begun = time.monotonic()
            _save(stage, state, folder)
            saved = time.monotonic()
            pause = max(CHECKPOINT_SECONDS, (saved - begun) / CHECKPOINT_SHARE)
    _save(stage, state, folder)
    parallel.wait()  # for the first process's checkpoint, which the next stage reads
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


def _losses(stage: Stage, seed: int, steps: range, compute: Compute) -> Iterator[list[Loss]]:
    """For each step, what computes the losses of its batches."""
    if compute.workers and isinstance(stage, PreparingStage) and steps:
        prepared = Prepared(stage.prepare, seed, parallel.rank(), compute.accumulate)
        for batches in in_processes(prepared, steps, compute.workers):
            yield [partial(stage.loss_of, batch) for batch in batches]
        return
    for step in steps:
        draw = torch.Generator().manual_seed(step_seed(seed, step, parallel.rank()))
        yield [partial(stage.loss, step, draw)] * compute.accumulate


def _backward(
    losses: Sequence[Loss], compute: Compute, device: torch.device
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Adds up the gradients of a step's batches; the mean of their losses, and the last one's figures."""
    total = torch.zeros((), device=device)
    figures: Mapping[str, Tensor | float] = {}
    for compute_loss in losses:
        with compute.autocast(device):
            loss, figures = compute_loss()
        part = loss / len(losses)
        if part.requires_grad:  # written questions with written answers teach an alignment nothing
            part.backward()
        total = total + part.detach()
    return total, figures


def _average(state: _State, schedule: Schedule, module: nn.Module) -> None:
    if state.average is None:
        return
    decay = min(schedule.ema, (1 + state.step) / (10 + state.step))
    for name, parameter in module.named_parameters():
        if name in state.average:
            state.average[name].lerp_(parameter.detach(), 1 - decay)


def _resume(stage: Stage, schedule: Schedule, folder: Path) -> _State:
    optimizer = make_optimizer(stage.module, schedule.optimizer, schedule.weight_decay, schedule.betas)
    average = None
    if schedule.ema:
        average = {n: p.detach().clone() for n, p in stage.module.named_parameters() if p.requires_grad}
    state = _State(0, optimizer, average, 0.0)
    path = folder / CHECKPOINT
    if path.exists():
        raw = _load(path)
        stage.module.load_state_dict(raw["module"])
        try:
            optimizer.load_state_dict(raw["optimizer"])
        except ValueError as error:
            raise FacrtError(f"{path} does not fit the recipe ({error}); remove it, or set the recipe back") from None
        state.step, state.seconds = raw["step"], raw["seconds"]
        if average is not None:
            average.update({name: value.to(average[name].device) for name, value in raw["average"].items()})
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


def _log(folder: Path, name: str, state: _State, figures: Mapping[str, Tensor | float]) -> None:
    if parallel.rank():
        return
    row = {"stage": name, "step": state.step, "seconds": round(state.seconds, 1)}
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, **{key: round(float(value), 5) for key, value in figures.items()}}) + "\n")
