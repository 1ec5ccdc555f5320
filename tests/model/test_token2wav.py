"""Flow and vocoder together, call by call, against the golden sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from facrt.model.checkpoint import load_flow, load_vocoder
from facrt.model.flow import Flow
from facrt.model.vocoder import Vocoder
from goldens import DETOKENIZER, expected, inputs, meta
from tolerances import TOLERANCES

SEQUENCES = tuple(run.removeprefix("t2w_") for run in meta(DETOKENIZER)["runs"] if run.startswith("t2w_"))


class Token2Wav:
    """Upstream's caller: the mel of all calls is kept and vocoded anew each time (SEMANTICS.md 8, caller cache)."""

    def __init__(self, flow: Flow, vocoder: Vocoder, noise: np.ndarray) -> None:
        self.flow, self.vocoder, self.noise = flow, vocoder, noise
        self.mel = torch.zeros(1, flow.config.num_mels, 0)
        self.num_sent = 0

    def __call__(self, token_offset: int, finalize: bool, **arguments: Any) -> torch.Tensor:
        mel = self.flow(**arguments, finalize=finalize)[:, :, token_offset * self.flow.config.token_mel_ratio :]
        self.mel = torch.cat([self.mel, mel], dim=2)
        wav = self.vocoder(self.mel, self.noise, finalize)[:, self.num_sent :]
        self.num_sent += wav.shape[1]
        return wav


@pytest.fixture(scope="module")
def modules() -> tuple[Flow, Vocoder]:
    return load_flow(DETOKENIZER / "model"), load_vocoder(DETOKENIZER / "model")


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_waveform(modules: tuple[Flow, Vocoder], sequence: str) -> None:
    params, wanted = meta(DETOKENIZER)["runs"][f"t2w_{sequence}"], expected(DETOKENIZER, "_token2wav")
    given = inputs(DETOKENIZER, "_flow")
    token2wav = Token2Wav(*modules, inputs(DETOKENIZER, "_hift")["sine_noise"])
    prompt = {"prompt_tokens": given["prompt_token"], "prompt_mel": given["prompt_feat"]} if params["prompt"] else {}
    assert len(params["calls"]) == sum(name.startswith(f"{sequence}__") for name in wanted)
    for i, call in enumerate(params["calls"]):
        wav = token2wav(
            call["token_offset"],
            call["finalize"],
            tokens=given["token"][:, : call["n_tokens"]],
            speaker=given["embedding"],
            streaming=call["stream"],
            **prompt,
        )
        assert wav.shape[1] == params["lens"][i]
        actual = torch.from_numpy(wanted[f"{sequence}__wav{i}"])
        torch.testing.assert_close(wav, actual, rtol=0, atol=TOLERANCES["waveform", "fp32"])
