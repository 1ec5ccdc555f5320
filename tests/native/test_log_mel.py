"""Log-mel spectrograms against what upstream computed, and against a restatement of both padding rules in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facrt.runtime import _native

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5  # log-mel units; upstream works in float32, we in float64
WHISPER_SAMPLES = 4_800_000  # 300 s


def as_float(pcm_int16: np.ndarray) -> np.ndarray:
    return (pcm_int16 / 32768).astype(np.float32)


def whisper_cases() -> list[tuple[str, str]]:
    return [
        (path.stem.removeprefix("expected_"), name)
        for path in sorted((GOLDEN / "lm").glob("expected_*.npz"))
        for name in np.load(path)
        if name.startswith("mel")
    ]


@pytest.mark.parametrize(("case", "name"), whisper_cases())
def test_whisper_equals_upstream(case: str, name: str) -> None:
    pcm = as_float(np.load(GOLDEN / "lm" / f"inputs_{case}.npz")[f"wav{name[3]}_int16"])
    wanted = np.load(GOLDEN / "lm" / f"expected_{case}.npz")[name]
    mel = _native.whisper_log_mel(pcm)
    assert mel.shape == (128, -(-len(pcm) // 160))
    if name.endswith("head200"):
        mel = mel[:, :200]
    if name.endswith("tail200"):
        mel = mel[:, -200:]
    np.testing.assert_allclose(mel, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_reflect_equals_upstream(index: int) -> None:
    pcm = as_float(np.load(GOLDEN / "s3tokenizer" / "inputs.npz")[f"wav{index}_int16"])
    wanted = np.load(GOLDEN / "s3tokenizer" / "expected.npz")[f"mel{index}"]
    np.testing.assert_allclose(_native.reflect_log_mel(pcm), wanted, rtol=0, atol=TOLERANCE)


def test_reflect_equals_upstream_on_long_audio() -> None:
    pcm = as_float(np.load(GOLDEN / "lm" / "inputs_u31.npz")["wav0_int16"])
    expected = np.load(GOLDEN / "s3tokenizer" / "expected.npz")
    mel = _native.reflect_log_mel(pcm)
    np.testing.assert_allclose(mel[:, :64], expected["long_mel_head"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(mel[:, -64:], expected["long_mel_tail"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_log_power_is_what_the_spectrogram_is_made_of(num_frames: int) -> None:
    samples = as_float(np.load(GOLDEN / "lm" / "inputs_u2p0.npz")["wav0_int16"])[: 160 * (num_frames - 1) + 400 + 159]
    power = _native.log_power(samples)
    assert power.shape == (128, num_frames)
    whole = _native.reflect_log_mel(samples[: 160 * (num_frames - 1) + 400])
    inner = _native.log_power(np.concatenate([samples[200:0:-1], samples]))[:, : whole.shape[1]]
    np.testing.assert_array_equal((np.maximum(inner, inner.max() - 8) + 4) * np.float32(0.25), whole)
    for wrong in (samples[:399], np.full(400, np.nan, np.float32)):
        with pytest.raises(ValueError, match="must be"):
            _native.log_power(wrong)


def slaney_filters(num_mels: int) -> np.ndarray:
    """[num_mels, 201] triangles of equal area, 0 .. 8000 Hz."""
    mels = np.linspace(0, 15 + 27 * np.log(8.0) / np.log(6.4), num_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = np.arange(201) * 40.0
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def restated(pcm: np.ndarray, num_mels: int) -> np.ndarray:
    """[num_mels, N // 160] of the signal as it is, in float64."""
    torch = pytest.importorskip("torch")
    window = torch.hann_window(400, dtype=torch.float64)
    spectrum = torch.stft(torch.from_numpy(pcm).double(), 400, 160, window=window, return_complex=True)
    power = slaney_filters(num_mels) @ (spectrum[:, :-1].abs() ** 2).numpy()
    log_power = np.log10(np.maximum(power, 1e-10))
    return (np.maximum(log_power, log_power.max() - 8) + 4) / 4


@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 200, 399, 401, 1000, WHISPER_SAMPLES - 20, WHISPER_SAMPLES])
def test_whisper_is_the_head_of_the_padded_signal(num_samples: int) -> None:
    pcm = np.random.default_rng(num_samples).normal(scale=0.1, size=num_samples).astype(np.float32)
    num_frames = -(-num_samples // 160)
    num_zeros = min(1600, WHISPER_SAMPLES - num_samples)  # more zeros add frames, but change none
    wanted = restated(np.pad(pcm, (0, num_zeros)), 128)[:, :num_frames]
    np.testing.assert_allclose(_native.whisper_log_mel(pcm), wanted, rtol=0, atol=1e-6)


def test_a_frame_after_the_last_one_can_set_the_floor() -> None:
    pcm = np.random.default_rng(0).normal(scale=1e-6, size=1600).astype(np.float32)
    pcm[-1] = 1.0  # 1 sample before the centre of frame 10, which is not returned
    wanted = restated(np.pad(pcm, (0, 1600)), 128)[:, :10]
    np.testing.assert_allclose(_native.whisper_log_mel(pcm), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("num_samples", [201, 319, 320, 16123])
def test_reflect_is_the_whole_signal(num_samples: int, num_mels: int) -> None:
    pcm = np.random.default_rng(num_samples).normal(scale=0.1, size=num_samples).astype(np.float32)
    mel = _native.reflect_log_mel(pcm, num_mels)
    np.testing.assert_allclose(mel, restated(pcm, num_mels), rtol=0, atol=1e-6)


def test_silence_is_the_lowest_value() -> None:
    assert np.all(_native.whisper_log_mel(np.zeros(320, np.float32)) == -1.5)


@pytest.mark.parametrize(
    ("pcm", "num_mels", "sentence"),
    [
        (np.zeros(0), 128, r"pcm has 0 samples, must have 1 \.\. 4800000"),
        (np.zeros(WHISPER_SAMPLES + 1), 128, "pcm has 4800001 samples"),
        (np.array([0, np.nan]), 128, "sample 1 is not finite"),
        (np.array([np.inf]), 128, "sample 0 is not finite"),
        (np.zeros(160), 0, r"num_mels 0 is outside 1 \.\. 201"),
    ],
)
def test_whisper_refuses(pcm: np.ndarray, num_mels: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _native.whisper_log_mel(pcm.astype(np.float32), num_mels)


def test_reflect_refuses_a_signal_shorter_than_its_padding() -> None:
    with pytest.raises(ValueError, match="200 samples, must have at least 201"):
        _native.reflect_log_mel(np.zeros(200, np.float32))


@pytest.mark.parametrize("pcm", [np.zeros(800), np.zeros((1, 800), np.float32), np.zeros(1600, np.float32)[::2]])
def test_only_contiguous_float32_is_taken(pcm: np.ndarray) -> None:
    with pytest.raises(TypeError):
        _native.whisper_log_mel(pcm)
