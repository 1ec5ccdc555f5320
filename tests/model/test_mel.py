"""Log-mels against upstream's, and what padding and truncation mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facrt.errors import AudioError
from facrt.model.mel import mel_filters, reflect_log_mel, whisper_log_mel
from goldens import LM, S3, expected, inputs
from tolerances import TOLERANCES

MAX_SAMPLES = 4_800_000  # 300 s


def as_float(pcm_int16: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((pcm_int16 / 32768).astype(np.float32))


def close(actual: torch.Tensor, wanted: np.ndarray) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=TOLERANCES["mel", "fp32"])


def tone(num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_samples)
    return 0.1 * torch.randn(num_samples, generator=generator)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_reflect_equals_upstream(index: int) -> None:
    close(reflect_log_mel(as_float(inputs(S3)[f"wav{index}_int16"])), expected(S3)[f"mel{index}"])


def test_reflect_equals_upstream_on_long_audio() -> None:
    mel = reflect_log_mel(as_float(inputs(LM, "_u31")["wav0_int16"]))
    close(mel[:, :64], expected(S3)["long_mel_head"])
    close(mel[:, -64:], expected(S3)["long_mel_tail"])


@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 16_000, MAX_SAMPLES - 170, MAX_SAMPLES])
def test_whisper_is_the_head_of_300_seconds(num_samples: int) -> None:
    pcm = tone(num_samples)
    whole = reflect_log_mel(F.pad(pcm, (0, MAX_SAMPLES - num_samples)))
    mel = whisper_log_mel(pcm)
    assert mel.shape == (128, -(-num_samples // 160))
    torch.testing.assert_close(mel, whole[:, : mel.shape[1]], rtol=0, atol=1e-5)


def test_whisper_hears_300_seconds() -> None:
    pcm = tone(MAX_SAMPLES + 1000)
    assert torch.equal(whisper_log_mel(pcm), whisper_log_mel(pcm[:MAX_SAMPLES]))


def test_a_frame_after_the_last_one_can_set_the_floor() -> None:
    pcm = F.pad(1e-6 * tone(1599), (0, 1), value=1.0)  # a click 1 sample before the centre of frame 10
    torch.testing.assert_close(whisper_log_mel(pcm), reflect_log_mel(F.pad(pcm, (0, 3200)))[:, :10], rtol=0, atol=1e-5)


def test_silence_is_the_lowest_value() -> None:
    assert whisper_log_mel(torch.zeros(320)).eq(-1.5).all()


@pytest.mark.parametrize("num_mels", [80, 128])
def test_filters(num_mels: int) -> None:
    filters = mel_filters(num_mels)
    assert filters.shape == (num_mels, 201)
    assert filters.min() == 0
    assert filters.amax(1).gt(0).all()
    assert filters.argmax(1).diff().ge(0).all()
    assert reflect_log_mel(tone(1000), num_mels).shape == (num_mels, 6)
    wide = filters[-num_mels // 4 :].double().sum(1) * 40  # 40 Hz per bin: the area of each triangle is 1
    torch.testing.assert_close(wide, torch.ones_like(wide), rtol=0, atol=0.05)


def test_refuses_what_has_no_frame() -> None:
    with pytest.raises(AudioError, match="no sample"):
        whisper_log_mel(torch.zeros(0))
    with pytest.raises(AudioError, match="200 samples, at least 201"):
        reflect_log_mel(torch.zeros(200))
