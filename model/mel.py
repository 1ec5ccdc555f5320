"""Log-mel spectrograms as Whisper's extractor and the S3 tokenizer hear (16 kHz), and as the flow speaks (24 kHz)."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AudioError

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
NUM_MELS = 128
MAX_SAMPLES = 300 * SAMPLE_RATE_HZ  # 300 s
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # log10 power below the loudest value

SPEECH_RATE_HZ = 24_000
SPEECH_WINDOW_SAMPLES, SPEECH_HOP_SAMPLES = 1920, 480
SPEECH_MELS = 80
MAGNITUDE_FLOOR = 1e-5


def whisper_log_mel(pcm: Tensor, num_mels: int = NUM_MELS) -> Tensor:
    """The valid frames of the signal padded with zeros to 300 s (SEMANTICS.md 1.5).

    Args:
        pcm: [N] 16 kHz; what lies beyond 300 s is not heard.

    Returns:
        [num_mels, ceil(N / 160)] float32, 100 frames/s.

    Raises:
        AudioError: there is no sample.
    """
    pcm = pcm[:MAX_SAMPLES].float()
    if pcm.shape[0] < 1:
        raise AudioError("the audio has no sample, at least 1 is needed")
    num_frames = -(-pcm.shape[0] // HOP_SAMPLES)
    num_zeros = min(2 * WINDOW_SAMPLES, MAX_SAMPLES - pcm.shape[0])  # later frames see zeros only
    return _scaled(_log_power(F.pad(pcm, (0, num_zeros)), num_mels))[:, :num_frames]


def reflect_log_mel(pcm: Tensor, num_mels: int = NUM_MELS) -> Tensor:
    """The signal as it is, reflected at both ends (SEMANTICS.md 9).

    Args:
        pcm: [N] 16 kHz.

    Returns:
        [num_mels, N // 160] float32, 100 frames/s.

    Raises:
        AudioError: the signal is shorter than what is reflected.
    """
    if pcm.shape[0] <= WINDOW_SAMPLES // 2:
        raise AudioError(f"the audio has {pcm.shape[0]} samples, at least {WINDOW_SAMPLES // 2 + 1} are needed")
    return _scaled(_log_power(pcm.float(), num_mels))


def speech_log_mel(pcm: Tensor) -> Tensor:
    """What the flow makes and the vocoder takes: natural log of mel magnitudes, 50 frames/s.

    Args:
        pcm: [..., N] 24 kHz, N a multiple of 480 and at least 960.

    Returns:
        [..., 80, N / 480] float32.
    """
    edge = (SPEECH_WINDOW_SAMPLES - SPEECH_HOP_SAMPLES) // 2
    rows = F.pad(pcm.float().reshape(-1, 1, pcm.shape[-1]), (edge, edge), mode="reflect").squeeze(1)
    window = torch.hann_window(SPEECH_WINDOW_SAMPLES)
    spectrum = torch.stft(
        rows, SPEECH_WINDOW_SAMPLES, SPEECH_HOP_SAMPLES, window=window, center=False, return_complex=True
    )
    magnitude = (spectrum.abs().square() + 1e-9).sqrt()
    filters = mel_filters(SPEECH_MELS, SPEECH_RATE_HZ, SPEECH_WINDOW_SAMPLES)
    log_mel = (filters @ magnitude).clamp(min=MAGNITUDE_FLOOR).log()
    return log_mel.reshape(*pcm.shape[:-1], *log_mel.shape[1:])


def _log_power(pcm: Tensor, num_mels: int) -> Tensor:  # [N] -> [num_mels, N // 160] log10
    window = torch.hann_window(WINDOW_SAMPLES)
    spectrum = torch.stft(pcm, WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power = mel_filters(num_mels) @ spectrum[:, :-1].abs().square()
    return power.clamp(min=POWER_FLOOR).log10()


def _scaled(log_power: Tensor) -> Tensor:
    return (log_power.maximum(log_power.max() - DYNAMIC_RANGE) + 4) / 4


@cache
def mel_filters(num_mels: int, rate_hz: int = SAMPLE_RATE_HZ, window_samples: int = WINDOW_SAMPLES) -> Tensor:
    """[num_mels, window_samples / 2 + 1] float32: Slaney's triangles of equal area, 0 .. half the rate.

    The mel scale is linear (200/3 Hz per mel) up to 1000 Hz = 15 mel, and logarithmic (27 mel per factor 6.4) above.
    """
    top = 15 + 27 * math.log(rate_hz / 2 / 1000) / math.log(6.4)
    mels = torch.linspace(0, top, num_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    bins = torch.linspace(0, rate_hz / 2, window_samples // 2 + 1, dtype=torch.float64)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (center - low), (high - bins) / (high - center)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()
