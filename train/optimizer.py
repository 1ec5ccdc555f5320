"""What a stage's parameters are updated by: AdamW, or Muon on the matrices of its layers and AdamW on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("adamw", "muon")
MUON_MOMENTUM = 0.95


class Optimizer:
    """One or two of PyTorch's optimizers as one, under one learning rate."""

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        self._parts = parts

    def step(self, lr: float) -> None:
        """Updates every parameter that has a gradient."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError: the state is of another optimizer, or of one over other parameters."""
        if set(state) != set(self._parts):
            raise ValueError(f"the state of {', '.join(state)} is none of {', '.join(self._parts)}")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def make_optimizer(module: nn.Module, kind: str, weight_decay: float, betas: tuple[float, float]) -> Optimizer:
    """The optimizer of those parameters of a module that are trained.

    Args:
        kind: one of `OPTIMIZERS`. Muon (torch.optim.Muon) scales its updates to the size of AdamW's, so that a
            learning rate means the same to both.
        weight_decay: of whatever is no vector.
        betas: AdamW's.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if kind == "muon" and is_hidden(name, p)]
    rest = [p for name, p in trained if kind != "muon" or not is_hidden(name, p)]
    parts: dict[str, torch.optim.Optimizer] = {}
    if matrices:
        parts["muon"] = torch.optim.Muon(
            matrices, weight_decay=weight_decay, momentum=MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
    if rest:
        parts["adamw"] = _adamw(rest, weight_decay, betas)
    return Optimizer(parts)


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter takes hidden rows to hidden rows: a matrix of a layer, neither an embedding nor a head."""
    return ".layers." in f".{name}" and parameter.ndim == 2


def _adamw(parameters: Sequence[nn.Parameter], weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=betas)
