"""The reference's flow and vocoder against the golden CosyVoice3 fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from facrt.model.checkpoint import load_flow, load_vocoder
from facrt.model.config import FlowConfig, VocoderConfig
from facrt.model.flow import Flow, flow_noise
from facrt.model.vocoder import Vocoder
from goldens import DETOKENIZER, expected, inputs, meta
from tolerances import TOLERANCES

RUNS = meta(DETOKENIZER)["runs"]
FLOW_RUNS = [name for name in RUNS if not name.startswith("t2w_")]
SEQUENCES = [name.removeprefix("t2w_") for name in RUNS if name.startswith("t2w_")]
FLOW, FLOW_WANTED = inputs(DETOKENIZER, "_flow"), expected(DETOKENIZER, "_flow")
HIFT, HIFT_WANTED = inputs(DETOKENIZER, "_hift"), expected(DETOKENIZER, "_hift")


@pytest.fixture(scope="module")
def flow() -> Flow:
    return load_flow(DETOKENIZER / "model")


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return load_vocoder(DETOKENIZER / "model")


def close(actual: torch.Tensor, wanted: np.ndarray, component: str) -> None:
    assert tuple(actual.shape) == wanted.shape
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=TOLERANCES[component, "fp32"])


def mel_of(flow: Flow, num_tokens: int, streaming: bool, finalize: bool, prompt: bool) -> torch.Tensor:
    prompts = (FLOW["prompt_token"], FLOW["prompt_feat"]) if prompt else (None, None)
    tokens = FLOW["token"][:, :num_tokens]
    return flow(tokens, FLOW["embedding"], FLOW["rand_noise"], *prompts, streaming=streaming, finalize=finalize)


@pytest.mark.parametrize("run", FLOW_RUNS)
def test_flow(flow: Flow, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[torch.Tensor, ...]] = []
    whole: Callable[..., torch.Tensor] = flow.estimator.forward

    def record(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append((*arguments, whole(*arguments)))
        return calls[-1][-1]

    monkeypatch.setattr(flow.estimator, "forward", record)
    r = RUNS[run]
    close(mel_of(flow, r["n_tokens"], r["streaming"], r["finalize"], r["prompt"]), FLOW_WANTED[f"{run}__mel"], "flow")
    if f"{run}__t_per_step" in FLOW_WANTED:
        times = torch.stack([call[2][0] for call in calls])
        np.testing.assert_allclose(times, FLOW_WANTED[f"{run}__t_per_step"], rtol=0, atol=1e-6)
    for step in (0, 5):
        if f"{run}__est{step}_x" in FLOW_WANTED:
            x, mu, t, spk, cond, _, velocity = calls[step]
            values = {"x": x, "mu": mu, "t": t, "spks": spk, "cond": cond, "out": velocity}
            for name, value in values.items():
                close(value, FLOW_WANTED[f"{run}__est{step}_{name}"], "flow")


@pytest.mark.parametrize("run", FLOW_RUNS)
def test_flow_front(flow: Flow, run: str) -> None:
    r = RUNS[run]
    tokens = torch.from_numpy(FLOW["token"][:, : r["n_tokens"]]).long()
    if r["prompt"]:
        tokens = torch.cat([torch.from_numpy(FLOW["prompt_token"]).long(), tokens], dim=1)
    mu, spk = flow.front(tokens, torch.from_numpy(FLOW["embedding"]))
    wanted = FLOW_WANTED[f"{run}__h"]
    close(mu[:, :, ::2].transpose(1, 2)[:, : wanted.shape[1]], wanted, "flow")
    close(spk, FLOW_WANTED["spk_projected"], "flow")


def test_vocoder_parts(vocoder: Vocoder) -> None:
    mel, noise = torch.from_numpy(HIFT["mel"]), torch.from_numpy(HIFT["sine_noise"])
    close(vocoder.source.f0(mel), HIFT_WANTED["f0_float64"], "f0")
    close(vocoder.source(mel, noise), HIFT_WANTED["source"], "vocoder_source")
    given = vocoder.decoder(mel, torch.from_numpy(HIFT_WANTED["source"]))
    close(given, HIFT_WANTED["wav_final"], "vocoder_given_source")


@pytest.mark.parametrize(("num_frames", "name"), [(62, "wav_final"), (40, "wav_nofinal_40"), (16, "wav_nofinal_16")])
def test_vocoder(vocoder: Vocoder, num_frames: int, name: str) -> None:
    wav = vocoder(HIFT["mel"][:, :, :num_frames], HIFT["sine_noise"], finalize=name == "wav_final")
    close(wav, HIFT_WANTED[name], "vocoder")


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_token_to_waveform(flow: Flow, vocoder: Vocoder, sequence: str) -> None:
    """Upstream's streaming calls: the mel so far is vocoded anew each time and what was sent is cut off."""
    r, wanted = RUNS[f"t2w_{sequence}"], expected(DETOKENIZER, "_token2wav")
    mel, sent = torch.zeros(1, 80, 0), 0
    for i, call in enumerate(r["calls"]):
        new = mel_of(flow, call["n_tokens"], call["stream"], call["finalize"], r["prompt"])
        mel = torch.cat([mel, new[:, :, 2 * call["token_offset"] :]], dim=2)
        wav = vocoder(mel, HIFT["sine_noise"], finalize=call["finalize"])[:, sent:]
        sent += wav.shape[1]
        close(wav, wanted[f"{sequence}__wav{i}"], "waveform")
    assert sent == sum(r["lens"])


def test_other_dimensions() -> None:
    flow = Flow(FlowConfig(50, 32, 1, 2, 8, 2, 24, chunk_frames=6, position_groups=4, num_steps=3))
    mel = flow(torch.arange(7)[None], torch.ones(1, 192))
    assert mel.shape == (1, 80, 14)
    assert mel.isfinite().all()
    options: dict[str, Any] = {"upsample_rates": (4, 3), "upsample_kernels": (8, 5), "num_harmonics": 4}
    options |= {"source_resblock_kernels": (3, 3), "source_resblock_dilations": ((1,), (1, 2))}
    vocoder = Vocoder(VocoderConfig(16, 8, **options))
    for parameter in vocoder.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    wav = vocoder(torch.zeros(1, 80, 10))
    assert wav.shape == (1, 10 * 4 * 3 * 4)
    assert wav.isfinite().all()


def test_flow_noise_is_the_released_models() -> None:
    import hashlib
    import json

    recorded = json.loads((DETOKENIZER / "real_noise.json").read_text())
    state = torch.get_rng_state()
    noise = flow_noise()
    assert hashlib.sha256(noise.numpy().tobytes()).hexdigest() == recorded["sha256_rand_noise"]
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(noise[:, :, : FLOW["rand_noise"].shape[2]], FLOW["rand_noise"])
