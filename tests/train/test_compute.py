"""Devices and precision: no stage mixes devices, bfloat16 is near, recomputed layers give the same gradients."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from facrt.errors import RequestError
from facrt.train.chat_stage import ChatStage
from facrt.train.compute import Compute
from facrt.train.recipe import STAGES
from facrt.train.run import Run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of two devices, as CUDA would; `meta` stands for the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        devices = {tensor.device.type for tensor in tensors}
        assert func in MOVES or len(devices) <= 1, f"{func} on {sorted(devices)}"
        return func(*args, **(kwargs or {}))


def ctc_without_values(scores: Tensor, labels: Tensor, lengths: Any, label_lengths: Any, **_: Any) -> Tensor:
    assert scores.device == labels.device
    assert not isinstance(lengths, Tensor)
    assert not isinstance(label_lengths, Tensor)
    return scores.mean()


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_mixes_devices_or_reads_values_back(
    trained_run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `meta` there are no values: reading one back, which would stop a GPU, raises."""
    monkeypatch.setattr(F, "ctc_loss", ctc_without_values)
    stage = trained_run.stage(name)
    stage.module.to("meta")
    with OneDevice():
        loss, figures = stage.loss(0, torch.Generator().manual_seed(1))
        loss.backward()
    assert loss.device.type == "meta"
    assert all(value.device.type == "meta" for value in figures.values() if isinstance(value, Tensor))


def test_the_check_sees_mixed_devices() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="meta"):
        torch.ones(2, device="meta") + torch.ones(2)


def losses(run: Run, name: str, compute: Compute) -> tuple[float, float]:
    """A stage's first loss and the norm of its gradient."""
    stage = run.stage(name)
    torch.manual_seed(2)
    with compute.autocast(torch.device("cpu")):
        loss, _ = stage.loss(0, torch.Generator().manual_seed(1))
    assert loss.dtype == torch.float32
    loss.backward()
    gradients = [p.grad for p in stage.module.parameters() if p.grad is not None]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return float(loss.detach()), math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))


@pytest.mark.parametrize("name", STAGES)
def test_bfloat16_is_near(trained_run: Run, name: str) -> None:
    exact, near = (losses(trained_run, name, Compute("cpu", dtype)) for dtype in ("fp32", "bf16"))
    assert near[0] == pytest.approx(exact[0], rel=0.06)  # the vocoder's log spectra are the farthest
    assert near[1] == pytest.approx(exact[1], rel=0.6)
    if name != "pitch":  # float64 throughout, as in the model
        assert near != exact, "autocast has no effect"


def test_recomputed_layers_give_the_same_gradients(trained_run: Run) -> None:
    gradients = []
    for recompute in (False, True):
        stage = trained_run.stage("cocktail1")
        assert isinstance(stage, ChatStage)
        stage._recompute = recompute
        stage.loss(0, torch.Generator().manual_seed(1))[0].backward()
        gradients.append({n: p.grad for n, p in stage.module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith("speech_head.decoder") for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0)


def test_recomputing_keeps_less(trained_run: Run) -> None:
    """Of the insides of the four layers nothing is kept for the way back."""
    kept = []
    for recompute in (False, True):
        stage = trained_run.stage("cocktail1")
        assert isinstance(stage, ChatStage)
        stage._recompute = recompute
        seen: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: (seen.append(t), t)[1], lambda t: t):
            stage.loss(0, torch.Generator().manual_seed(1))
        kept.append(len(seen))
    assert kept[0] - kept[1] > 4 * 10


def test_the_losses_are_those_of_before(trained_run: Run) -> None:
    """Recorded on a CPU in float32."""
    for name in STAGES:
        rows = [json.loads(line) for line in (trained_run.folder / name / "log.jsonl").read_text().splitlines()]
        assert (rows[0]["step"], rows[-1]["step"]) == (1, 3)
        first, last = RECORDED[name]
        assert rows[0]["loss"] == pytest.approx(first, rel=1e-3), name
        assert rows[-1]["loss"] == pytest.approx(last, rel=0.05), name  # other processors round otherwise


RECORDED = {
    "tokenizer": (2.82241, 2.73949),
    "flow": (13.11788, 12.83111),
    "vocoder": (9.07312, 6.69239),
    "pitch": (0.49001, 0.46924),
    "text": (5.76761, 5.68431),
    "encoder": (6.32799, 10.09336),
    "alignment": (18.58348, 17.58123),
    "cocktail1": (18.26573, 17.42659),
    "cocktail2": (17.99591, 17.3786),
}


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Compute().torch_device().type == "cpu"
    with pytest.raises(RequestError, match="sees no GPU"):
        Compute("cuda").torch_device()


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Compute().torch_device() == torch.device("cuda", 1)
    assert chosen == [1]
    assert not torch.backends.cudnn.allow_tf32
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RequestError, match="--nproc-per-node 2"):
        Compute().torch_device()
