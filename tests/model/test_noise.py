"""The vocoder's noise, generated without torch, against torch."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from facrt.errors import RequestError
from facrt.model.noise import MAX_SAMPLES, vocoder_noise
from goldens import DETOKENIZER
from torch import nn


def test_equals_torch_bit_for_bit() -> None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.randn(1, 80, 15000)
    nn.Embedding(6561, 80)
    nn.Linear(192, 80)
    nn.Conv1d(80, 512, 4)
    for _ in range(4):
        nn.Conv1d(512, 512, 3)
    nn.Linear(512, 1)
    torch.rand(1, 9)
    wanted = torch.rand(1, 24_000, 9).numpy()
    torch.set_rng_state(state)
    np.testing.assert_array_equal(vocoder_noise(24_000), wanted)


def test_equals_the_recorded_values() -> None:
    recorded = json.loads((DETOKENIZER / "real_noise.json").read_text())
    noise = vocoder_noise(24_000)
    assert hashlib.sha256(noise.tobytes()).hexdigest() == recorded["sha256_sine_first_second"]
    np.testing.assert_array_equal(noise[0, 0], np.array(recorded["sine_first_row"], np.float32))


def test_a_longer_call_continues_a_shorter_one() -> None:
    short = vocoder_noise(100).copy()
    np.testing.assert_array_equal(vocoder_noise(30_000)[:, :100], short)


def test_more_than_300_s_is_refused() -> None:
    with pytest.raises(RequestError, match="300 s"):
        vocoder_noise(MAX_SAMPLES + 1)
