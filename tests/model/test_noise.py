"""The vocoder's noise, drawn with numpy, against torch and against upstream's values."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from facrt.errors import RequestError
from facrt.model.noise import MAX_SAMPLES, vocoder_noise
from goldens import DETOKENIZER
from torch import nn


def test_equals_torch_bit_for_bit() -> None:
    num_samples = 720_000  # 30 s
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.randn(1, 80, 15_000)
        nn.Embedding(6561, 80)
        nn.Linear(192, 80)
        for in_size, kernel in ((80, 4), (512, 3), (512, 3), (512, 3), (512, 3)):
            nn.Conv1d(in_size, 512, kernel)
        nn.Linear(512, 1)
        torch.rand(1, 9)
        wanted = torch.rand(1, num_samples, 9)
    noise = vocoder_noise(num_samples)
    assert noise.dtype == np.float32
    assert noise.shape == (1, num_samples, 9)
    assert np.array_equal(noise, wanted.numpy())


def test_equals_upstream() -> None:
    real = json.loads((DETOKENIZER / "real_noise.json").read_text())
    noise = vocoder_noise(24_000)
    assert noise[0, 0].tolist() == real["sine_first_row"]
    assert noise[0, 1].tolist() == real["sine_row_1"]
    assert hashlib.sha256(noise.tobytes()).hexdigest() == real["sha256_sine_first_second"]


def test_is_the_same_however_it_is_asked_for() -> None:
    whole = vocoder_noise(3000, channels=4)
    assert not np.array_equal(whole[:, :, :1], vocoder_noise(3000, channels=1))
    for num_samples in (0, 1, 7, 2999, 3000, 3001, 10_000, 5):
        piece = vocoder_noise(num_samples, channels=4)
        assert piece.shape == (1, num_samples, 4)
        assert np.array_equal(piece[:, :3000], whole[:, :num_samples])


def test_belongs_to_the_caller() -> None:
    vocoder_noise(10)[:] = 5
    assert vocoder_noise(10).max() < 1


@pytest.mark.parametrize("num_samples", [-1, MAX_SAMPLES + 1])
def test_refuses_more_than_there_is(num_samples: int) -> None:
    with pytest.raises(RequestError, match=f"{num_samples} samples of noise"):
        vocoder_noise(num_samples)


def test_needs_no_torch() -> None:
    check = (
        "import sys; from facrt.model.noise import vocoder_noise; vocoder_noise(1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_noise_from_the_middle() -> None:
    np.testing.assert_array_equal(vocoder_noise(50, 9, start=30), vocoder_noise(80, 9)[:, 30:])
    with pytest.raises(RequestError, match="7200001 samples"):
        vocoder_noise(2, 9, start=7_199_999)
