"""The speech tokenizer against upstream's ids and tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facrt.errors import AudioError
from facrt.model import weights
from facrt.model.checkpoint import load_speech_tokenizer
from facrt.model.config import SpeechTokenizerConfig
from facrt.model.mel import reflect_log_mel
from facrt.model.speech_tokenizer import SpeechTokenizer, speech_tokenizer_layout
from goldens import LM, S3, expected, inputs
from safetensors.torch import save_file
from tolerances import TOLERANCES

INDICES = (0, 1, 2)


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return load_speech_tokenizer(S3 / "model")


def as_float(pcm_int16: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((pcm_int16 / 32768).astype(np.float32))


def waveform(index: int) -> torch.Tensor:
    return as_float(inputs(S3)[f"wav{index}_int16"])


def close(actual: torch.Tensor, wanted: np.ndarray) -> None:
    tolerance = TOLERANCES["speech_tokenizer", "fp32"]
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=tolerance)


@pytest.mark.parametrize("index", INDICES)
def test_ids(tokenizer: SpeechTokenizer, index: int) -> None:
    wanted, ids = expected(S3), tokenizer.encode(waveform(index))
    assert ids.dtype == torch.int64
    assert ids.tolist() == wanted[f"codes_single{index}"][0].tolist()
    assert ids.tolist() == wanted["codes"][index, : wanted["codes_len"][index]].tolist()
    assert tokenizer.encode(waveform(index)[None].numpy()).tolist() == ids.tolist()


@pytest.mark.parametrize("index", INDICES)
def test_hidden_and_projection(tokenizer: SpeechTokenizer, index: int) -> None:
    wanted, length = expected(S3), expected(S3)["hidden_len"][index]
    hidden = tokenizer.hidden(reflect_log_mel(waveform(index))[None])
    close(hidden, wanted["hidden"][index : index + 1, :length])
    close(tokenizer.project_down(hidden), wanted["project_down"][index : index + 1, :length])


def test_long_audio_goes_through_overlapping_windows(tokenizer: SpeechTokenizer) -> None:
    wanted = expected(S3)
    ids = tokenizer.encode(as_float(inputs(LM, "_u31")["wav0_int16"]))
    assert ids.shape == (wanted["long_codes_len"][0],)
    assert ids.tolist() == wanted["long_codes"][0].tolist()


@pytest.mark.parametrize("num_frames", [2, 399, 2999, 3000, 3001, 5599, 5600, 5601, 8201])
def test_windows_lose_and_repeat_nothing(
    tokenizer: SpeechTokenizer, num_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def positions(mel: torch.Tensor) -> torch.Tensor:  # an id that says where it comes from
        assert mel.shape[2] <= 3000
        return mel[:, 0, ::4].long()

    monkeypatch.setattr(tokenizer, "forward", positions)
    frames = torch.arange(num_frames).float().expand(128, -1)
    monkeypatch.setattr("facrt.model.speech_tokenizer.reflect_log_mel", lambda *_: frames)
    assert tokenizer.encode(torch.zeros(1)).tolist() == list(range(0, num_frames, 4))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 101])
def test_ids_per_frame(tokenizer: SpeechTokenizer, num_frames: int) -> None:
    assert tokenizer(torch.zeros(1, 128, num_frames)).shape == (1, -(-num_frames // 4))


def test_first_digit_is_the_least_significant(tokenizer: SpeechTokenizer) -> None:
    projected = torch.tensor([[9.0, 0, -9, -9, -9, -9, -9, -9], [9.0] * 8, [-9.0] * 8])
    assert tokenizer.quantize(projected).tolist() == [5, 6560, 0]


def test_refuses_what_is_too_short(tokenizer: SpeechTokenizer) -> None:
    with pytest.raises(AudioError, match="200 samples, at least 201"):
        tokenizer.encode(torch.zeros(200))


def test_other_dimensions(tmp_path: Path) -> None:
    config = SpeechTokenizerConfig(d_model=24, num_heads=3, num_layers=2, num_mels=20, fsmn_kernel=5)
    layout = speech_tokenizer_layout(config)
    parts = [part for weight in layout.values() for part in weight.parts if part.name is not None]
    generator = torch.Generator().manual_seed(0)
    save_file({p.name: torch.randn(p.shape, generator=generator) for p in parts}, tmp_path / "model.safetensors")
    source = weights.SafetensorsSource(tmp_path)
    weights.check(layout, source)
    with torch.device("meta"):
        module = SpeechTokenizer(config)
    weights.load(module, layout, source)
    ids = module.encode(torch.randn(16_000, generator=generator))
    assert ids.shape == (25,)
    assert ids.min() >= 0
    assert ids.max() < config.num_codes
