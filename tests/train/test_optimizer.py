"""Muon on the matrices of layers, AdamW on the rest; what is kept of both goes on where it was left."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facrt.errors import FacrtError
from facrt.train.loop import load_trained, run_stage
from facrt.train.optimizer import is_hidden, make_optimizer
from line_stage import SCHEDULE, Line
from torch import nn

MUON = replace(SCHEDULE, optimizer="muon")


class Deep(Line):
    """A line learned through a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        layers = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
        self.module = nn.Sequential(
            OrderedDict(embedding=nn.Linear(3, 4), layers=layers, norm=nn.LayerNorm(4), head=nn.Linear(4, 1))
        )


def test_only_a_layers_matrices_are_hidden() -> None:
    parameters = dict(Deep().module.named_parameters())
    assert [name for name, parameter in parameters.items() if is_hidden(name, parameter)] == ["layers.0.weight"]


def test_one_step() -> None:
    """Muon's update has equal singular values, 0.2 * sqrt(the longer side) of the rate each; AdamW's is the rate."""
    module = Deep().module
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = make_optimizer(module, "muon", 0.0, (0.9, 0.98))
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step(1e-2)
    moved = {name: before[name] - p.detach() for name, p in module.named_parameters()}
    values = torch.linalg.svdvals(moved["layers.0.weight"]) / (0.2 * 4**0.5 * 1e-2)
    torch.testing.assert_close(values, torch.ones(4), rtol=0.35, atol=0)  # five iterations, in bfloat16
    for name in ("embedding.weight", "layers.0.bias", "norm.weight", "head.weight"):
        torch.testing.assert_close(moved[name].abs(), torch.full_like(moved[name], 1e-2), rtol=1e-3, atol=0)


def test_frozen_parameters_stay() -> None:
    module = Deep().module
    module.get_submodule("layers").requires_grad_(False)
    optimizer = make_optimizer(module, "muon", 0.1, (0.9, 0.98))
    frozen = module.get_parameter("layers.0.weight").detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1e-2)
    assert torch.equal(module.get_parameter("layers.0.weight"), frozen)
    assert set(optimizer.state_dict()) == {"adamw"}


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run_stage(Deep(), MUON, 3, tmp_path / "whole")
    for stop in (13, 40):
        run_stage(Deep(), MUON, 3, tmp_path / "pieces", until=stop)
    whole, pieces = Deep().module, Deep().module
    load_trained(tmp_path / "whole", whole)
    load_trained(tmp_path / "pieces", pieces)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_optimizers_checkpoint_is_refused(tmp_path: Path) -> None:
    run_stage(Deep(), SCHEDULE, 3, tmp_path, until=5)
    with pytest.raises(FacrtError, match=r"does not fit the recipe .*remove it"):
        run_stage(Deep(), MUON, 3, tmp_path)
