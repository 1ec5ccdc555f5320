"""Folds leave a model as it is; AWQ beats round-to-nearest; SmoothQuant beats plain INT8 activations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from facrt.model.audio_encoder import AudioEncoder
from facrt.model.backbone import Backbone
from facrt.model.checkpoint import load_chat, load_flow
from facrt.model.decoder import CachedAttention
from facrt.model.flow import FlowEstimator, visible_in_chunks
from facrt.model.speech_head import SpeechHead
from facrt.quant.folds import Fold, apply, find_folds
from facrt.quant.schemes import SCHEMES
from facrt.quant.search import Statistics, search_awq, smooth
from goldens import DETOKENIZER, LM
from torch import Tensor, nn


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run_decoder(decoder: Backbone | SpeechHead) -> Tensor:
    wide = decoder.head.in_features
    y = decoder(random(7, wide), CachedAttention(decoder.decoder.config))
    return y[0] if isinstance(y, tuple) else y


def run_encoder(encoder: AudioEncoder) -> Tensor:
    audio = encoder.config
    return encoder(random(2, audio.num_mels, audio.window_frames), torch.tensor([200, 120]))


def run_estimator(estimator: FlowEstimator) -> Tensor:
    mel = [random(2, 80, 12, seed=seed) for seed in range(3)]
    return estimator(mel[0], mel[1], torch.tensor([0.3, 0.3]), random(2, 80), mel[2], visible_in_chunks(12, 50))


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "backbone": (lambda: load_chat(LM / "model").backbone, run_decoder),
    "speech_head": (lambda: load_chat(LM / "model").speech_head, run_decoder),
    "audio_encoder": (lambda: load_chat(LM / "model").audio_encoder, run_encoder),
    "flow_estimator": (lambda: load_flow(DETOKENIZER / "model").estimator, run_estimator),
}


@pytest.mark.parametrize("component", MODULES)
@torch.no_grad()
def test_folds_leave_the_function_as_it_is(component: str) -> None:
    make, run = MODULES[component]
    module = make()
    folds = find_folds(module)
    assert len({fold.linear for fold in folds}) == len(folds) > 2
    before = run(module)
    weights = {fold.linear: module.get_parameter(fold.linear).clone() for fold in folds}
    scales = {}
    for i, fold in enumerate(folds):
        cols = fold.shared(torch.ones(weights[fold.linear].shape[1]))
        scales[fold.linear] = random(len(cols), seed=i).exp()
    apply(module, {}, scales)
    after = run(module)
    assert all(not torch.equal(module.get_parameter(name), weight) for name, weight in weights.items())
    assert float((after - before).norm() / before.norm()) < 1e-5


@torch.no_grad()
def test_what_is_on_disk_is_rewritten_when_it_is_read() -> None:
    module = load_chat(LM / "model").backbone
    fold = find_folds(module)[0]
    weight = module.get_parameter(fold.linear)
    scale = random(weight.shape[1]).exp()
    readers = apply(module, {id(weight): lambda: weight.clone()}, {fold.linear: scale})
    assert torch.equal(readers[id(weight)](), weight * scale)


def uneven(rows: int, cols: int, seed: int) -> Tensor:
    """Inputs whose channels differ in magnitude, with a few outliers, as a transformer's do."""
    magnitude = random(cols, seed=9).exp()
    magnitude[:: cols // 4] *= 30
    return random(rows, cols, seed=seed) * magnitude


def statistics(x: Tensor) -> Statistics:
    return Statistics(x[:128], x.abs().amax(0), x.abs().mean(0))


PLAIN = Fold("any", ())


@pytest.mark.parametrize("name", ["awq_128", "awq_32"])
def test_awq_beats_round_to_nearest_on_held_out_inputs(name: str) -> None:
    scheme, weight = SCHEMES[name], random(96, 256)
    assert scheme.quantize is not None
    scale = search_awq(PLAIN, weight, statistics(uneven(500, 256, seed=1)), scheme)
    held_out = uneven(400, 256, seed=2)
    calibrated = scheme.dequantize(scheme.quantize(weight * scale)) / scale
    plain = scheme.dequantize(scheme.quantize(weight))
    errors = [float((held_out @ (w - weight).T).norm()) for w in (calibrated, plain)]
    assert errors[0] < 0.7 * errors[1]


def with_rounded_inputs(x: Tensor, step: float) -> Tensor:
    return (x / step).round().clamp(-128, 127) * step


def test_smoothquant_beats_plain_int8_activations_with_outliers() -> None:
    scheme, weight = SCHEMES["w8a8"], random(96, 256)
    assert scheme.quantize is not None
    found = statistics(uneven(500, 256, seed=1))
    scale = smooth(PLAIN, weight, found)
    held_out = uneven(400, 256, seed=2)
    wanted = held_out @ weight.T

    def product(x: Tensor, w: Tensor, step: float) -> Tensor:
        assert scheme.quantize is not None
        return with_rounded_inputs(x, step) @ scheme.dequantize(scheme.quantize(w)).T

    smoothed = product(held_out / scale, weight * scale, found.divided(scale).step)
    plain = product(held_out, weight, found.step)
    assert float((smoothed - wanted).norm()) < 0.5 * float((plain - wanted).norm())


def test_a_shared_row_takes_the_largest_of_its_columns() -> None:
    fold = Fold("out.weight", (), heads=(2, 3))  # 2 KV heads of 4, each read by 3 query heads
    statistic = torch.arange(24.0)
    assert fold.shared(statistic).tolist() == [8, 9, 10, 11, 20, 21, 22, 23]
    columns = fold.per_column(torch.arange(8.0))
    assert columns[:12].tolist() == [0, 1, 2, 3] * 3
    assert columns[12:].tolist() == [4, 5, 6, 7] * 3
