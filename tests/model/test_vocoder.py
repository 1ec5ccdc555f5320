"""The vocoder against every golden array, and what its parts promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facrt.model import weights
from facrt.model.checkpoint import load_vocoder
from facrt.model.config import VocoderConfig
from facrt.model.noise import vocoder_noise
from facrt.model.vocoder import Vocoder, vocoder_layout
from goldens import DETOKENIZER, expected, inputs
from safetensors.torch import save_file
from tolerances import TOLERANCES

TINY = VocoderConfig(
    base_channels=12,
    f0_channels=6,
    num_mels=5,
    num_harmonics=3,
    sample_rate=8000,
    upsample_rates=(4, 3),
    upsample_kernels=(8, 5),
    istft_size=8,
    istft_hop=2,
    resblock_kernels=(3, 5),
    resblock_dilations=((1, 2), (1, 3)),
    source_resblock_kernels=(5, 3),
    source_resblock_dilations=((1,), (1, 2)),
    look_right=2,
)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return load_vocoder(DETOKENIZER / "model")


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.from_numpy(inputs(DETOKENIZER, "_hift")["mel"])


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.from_numpy(inputs(DETOKENIZER, "_hift")["sine_noise"])


def random_vocoder(config: VocoderConfig, folder: Path) -> Vocoder:
    generator, layout = torch.Generator().manual_seed(0), vocoder_layout(config)
    parts = [part for weight in layout.values() for part in weight.parts]
    save_file({p.name: torch.randn(p.shape, generator=generator) for p in parts}, folder / "hift.safetensors")
    source = weights.SafetensorsSource(folder, "hift")
    weights.check(layout, source)
    with torch.device("meta"):
        module = Vocoder(config)
    weights.load(module, layout, source)
    return module


def close(actual: torch.Tensor, wanted: np.ndarray, component: str) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=TOLERANCES[component, "fp32"])


def test_pitch(vocoder: Vocoder, mel: torch.Tensor) -> None:
    wanted = expected(DETOKENIZER, "_hift")
    close(vocoder.source.f0(mel), wanted["f0_float64"], "f0")
    shorter = wanted["f0_nofinal_40"]
    close(vocoder.source.f0(mel[:, :, :40])[:, : shorter.shape[1]], shorter, "f0")


def test_pitch_is_that_of_float64_convolutions(vocoder: Vocoder, mel: torch.Tensor) -> None:
    source = weights.SafetensorsSource(DETOKENIZER / "model", "hift")
    x = mel.double()
    for i, padding in enumerate([(0, 3), (2, 0), (2, 0), (2, 0), (2, 0)]):
        name = f"f0_predictor.condnet.{2 * i}"
        gain, direction = (source.read(f"{name}.parametrizations.weight.original{k}").double() for k in (0, 1))
        weight = torch._weight_norm(direction, gain, 0)
        x = F.elu(F.conv1d(F.pad(x, padding), weight, source.read(f"{name}.bias").double()))
    last = (source.read(f"f0_predictor.classifier.{k}").double() for k in ("weight", "bias"))
    wanted = F.linear(x.transpose(1, 2), *last).abs().squeeze(2)
    pitch = vocoder.source.pitch(mel)
    assert pitch.dtype == torch.float64
    torch.testing.assert_close(pitch, wanted, rtol=1e-12, atol=1e-12)


def test_source(vocoder: Vocoder, mel: torch.Tensor, noise: torch.Tensor) -> None:
    wanted = expected(DETOKENIZER, "_hift")
    close(vocoder.source(mel, noise), wanted["source"], "vocoder_source")
    shorter = wanted["source_nofinal_40"]
    actual = vocoder.source(mel[:, :, :40], noise[:, : 40 * vocoder.config.samples_per_frame])
    close(actual[:, :, : shorter.shape[2]], shorter, "vocoder_source")


def test_decoder_given_the_source(vocoder: Vocoder, mel: torch.Tensor) -> None:
    wanted = expected(DETOKENIZER, "_hift")
    close(vocoder.decoder(mel, torch.from_numpy(wanted["source"])), wanted["wav_final"], "vocoder_given_source")


@pytest.mark.parametrize(
    ("num_frames", "name", "finalize"),
    [(62, "wav_final", True), (40, "wav_nofinal_40", False), (16, "wav_nofinal_16", False)],
)
def test_waveform(
    vocoder: Vocoder, mel: torch.Tensor, noise: torch.Tensor, num_frames: int, name: str, finalize: bool
) -> None:
    wav = vocoder(mel[:, :, :num_frames], noise, finalize=finalize)
    close(wav, expected(DETOKENIZER, "_hift")[name], "vocoder")


@pytest.mark.parametrize("num_frames", [9, 10, 31, 61])
def test_what_is_not_held_back_is_final(
    vocoder: Vocoder, mel: torch.Tensor, noise: torch.Tensor, num_frames: int
) -> None:
    early = vocoder(mel[:, :, :num_frames].numpy(), noise.numpy(), finalize=False)
    assert early.shape == (1, (num_frames - 8) * 480)
    whole = vocoder(mel, noise)
    torch.testing.assert_close(early, whole[:, : early.shape[1]], rtol=0, atol=1e-5)


def test_all_is_held_back_of_a_short_mel(vocoder: Vocoder, mel: torch.Tensor, noise: torch.Tensor) -> None:
    assert vocoder(mel[:, :, :3], noise, finalize=False).shape == (1, 0)


def test_default_noise_is_upstreams(vocoder: Vocoder, mel: torch.Tensor) -> None:
    assert torch.equal(vocoder(mel[:, :, :4]), vocoder(mel[:, :, :4], vocoder_noise(4 * 480)))


def test_phase_is_accumulated_as_upstream_does_on_the_cpu(vocoder: Vocoder) -> None:
    f0 = torch.rand(1, 1500, 1, generator=torch.Generator().manual_seed(0)) * 300  # 30 s
    repeated = f0.repeat_interleave(480, dim=1) * torch.arange(1, 10)  # as SineGen2: every sample, then down by 480
    turns = F.interpolate((repeated / 24_000 % 1).transpose(1, 2), scale_factor=1 / 480, mode="linear")
    phase = torch.cumsum(turns.transpose(1, 2), dim=1) * 2 * torch.pi
    wanted = torch.sin(phase * 480) * 0.1
    start = torch.zeros(1, 1, 9, dtype=torch.float64)
    phases = vocoder.source._phases(f0, start, torch.tensor(0))
    torch.testing.assert_close(vocoder.source._sines(phases), wanted, rtol=0, atol=1e-6)
    pieces = []
    for begin in range(0, 1500, 300):  # each with 7 frames of context before it
        num_context = min(begin, 7)
        piece = vocoder.source._phases(f0[:, begin - num_context : begin + 300], start, torch.tensor(num_context))
        pieces.append(piece[:, num_context:])
        start = piece[:, -1:]
    assert torch.equal(torch.cat(pieces, dim=1), phases)


@pytest.mark.parametrize("size", ["golden", "tiny"])
def test_convolutions_are_the_fourier_transforms(vocoder: Vocoder, tmp_path: Path, size: str) -> None:
    decoder = vocoder.decoder if size == "golden" else random_vocoder(TINY, tmp_path).decoder
    n_fft, hop = decoder.config.istft_size, decoder.config.istft_hop
    x = torch.randn(1, 1, 37 * hop, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(n_fft)
    wanted = torch.stft(x[0], n_fft, hop, window=window, return_complex=True)
    spectrum = decoder.analyze(x)
    torch.testing.assert_close(spectrum, torch.cat([wanted.real, wanted.imag], dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(decoder._istft(spectrum), x[0], rtol=0, atol=1e-5)
    other = torch.randn(spectrum.shape, generator=torch.Generator().manual_seed(1))  # no signal's spectrum
    as_complex = torch.complex(*other.chunk(2, dim=1))
    torch.testing.assert_close(
        decoder._istft(other), torch.istft(as_complex, n_fft, hop, window=window), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, upsample_rates=(5,), upsample_kernels=(7,), source_resblock_kernels=(3,), num_harmonics=0),
        replace(TINY, istft_hop=4, resblock_kernels=(3,), look_right=0),
    ],
)
def test_other_dimensions(config: VocoderConfig, tmp_path: Path) -> None:
    stages, kernels = len(config.upsample_rates), len(config.resblock_kernels)
    config = replace(
        config,
        resblock_dilations=config.resblock_dilations[:kernels],
        source_resblock_dilations=config.source_resblock_dilations[:stages],
    )
    module = random_vocoder(config, tmp_path)
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(1, 5, 20, generator=generator)
    noise = torch.rand(1, 20 * config.samples_per_frame, config.num_harmonics + 1, generator=generator)
    wav = module(mel, noise)
    assert wav.shape == (1, 20 * config.samples_per_frame)
    assert wav.abs().max() <= config.audio_limit
    early = module(mel[:, :, :15], noise, finalize=False)
    assert early.shape == (1, (15 - 4 - config.look_right) * config.samples_per_frame)
