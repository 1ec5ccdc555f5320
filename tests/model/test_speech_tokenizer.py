"""The reference's speech tokenizer against the golden S3 fixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facrt.model.checkpoint import load_speech_tokenizer
from facrt.model.generate import as_float_pcm
from facrt.model.mel import reflect_log_mel
from facrt.model.speech_tokenizer import SpeechTokenizer
from goldens import LM, S3, expected, inputs
from tolerances import TOLERANCES

WAVS, WANTED = inputs(S3), expected(S3)


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return load_speech_tokenizer(S3 / "model")


@pytest.mark.parametrize("i", range(3))
def test_one_recording(tokenizer: SpeechTokenizer, i: int) -> None:
    pcm = as_float_pcm(WAVS[f"wav{i}_int16"])
    mel = reflect_log_mel(pcm)
    np.testing.assert_allclose(mel, WANTED[f"mel{i}"], rtol=0, atol=TOLERANCES["mel", "fp32"])
    hidden = tokenizer.hidden(mel[None])
    length = int(WANTED["hidden_len"][i])
    limit = TOLERANCES["speech_tokenizer", "fp32"]
    np.testing.assert_allclose(hidden[0], WANTED["hidden"][i, :length], rtol=0, atol=limit)
    down = tokenizer.project_down(hidden)
    np.testing.assert_allclose(down[0], WANTED["project_down"][i, :length], rtol=0, atol=limit)
    ids = tokenizer.encode(WAVS[f"wav{i}_int16"]).tolist()
    assert ids == WANTED[f"codes_single{i}"][0].tolist() == WANTED["codes"][i, :length].tolist()


def test_windows_over_30_s(tokenizer: SpeechTokenizer) -> None:
    pcm = inputs(LM, "_u31")["wav0_int16"]
    mel = reflect_log_mel(as_float_pcm(pcm))
    for part, wanted in ((mel[:, :64], WANTED["long_mel_head"]), (mel[:, -64:], WANTED["long_mel_tail"])):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=TOLERANCES["mel", "fp32"])
    assert tokenizer.encode(torch.from_numpy(pcm)).tolist() == WANTED["long_codes"][0].tolist()
