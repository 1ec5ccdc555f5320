"""The vocoder's fixed noise, as upstream draws it; no torch.

Upstream's noise is whatever `torch.rand` gives after seed 0 and the initialization of the modules before it. Torch's
CPU generator is MT19937, which numpy has too.
"""

from __future__ import annotations

from math import prod
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

SEED = 0
MAX_SAMPLES = 7_200_000  # 300 s at 24 kHz

# What upstream initializes before the noise, in order; one draw per element (SEMANTICS.md 8, real noise recipe).
DRAWN_BEFORE: tuple[tuple[int, ...], ...] = (
    (1, 80, 15_000),  # flow noise
    (6561, 80),  # token embedding
    *((80, 192), (80,)),  # speaker projection
    *((512, 80, 4), (512,)),  # pitch predictor's convolutions
    *((512, 512, 3), (512,)) * 4,
    *((1, 512), (1,)),  # its last layer
)  # then one initial phase per channel


def vocoder_noise(num_samples: int, channels: int = 9, start: int = 0) -> NDArray[np.float32]:
    """Samples of upstream's noise, bit for bit.

    Args:
        num_samples: at 24 kHz, at most 7 200 000.
        channels: harmonics and fundamental; the published model has 9.
        start: the first sample.

    Returns:
        [1, num_samples, channels] uniform in [0, 1), the caller's own copy.

    Raises:
        RequestError: more samples than upstream has noise for.
    """
    end = start + num_samples
    if not 0 <= start <= end <= MAX_SAMPLES:
        raise RequestError(f"{end} samples of noise are asked for, 0 .. {MAX_SAMPLES} are possible")
    with _lock:
        stream = _streams.get(channels)
        if stream is None:
            stream = _streams[channels] = _Stream(sum(map(prod, DRAWN_BEFORE)) + channels)
        noise = stream.first(end * channels)
    return noise[start * channels :].copy().reshape(1, num_samples, channels)


class _Stream:
    """The draws after `skipped` ones, kept as far as they were asked for."""

    def __init__(self, skipped: int) -> None:
        self._bits = np.random.MT19937()
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": _initial_key(SEED), "pos": 624}}
        self._bits.random_raw(skipped, output=False)
        self._drawn = np.zeros(0, np.float32)
        self._count = 0

    def first(self, count: int) -> NDArray[np.float32]:
        if count > len(self._drawn):
            grown = np.empty(max(count, 2 * len(self._drawn)), np.float32)
            grown[: self._count] = self._drawn[: self._count]
            self._drawn = grown
        while self._count < count:
            end = min(count, self._count + (1 << 20))
            raw = self._bits.random_raw(end - self._count)
            self._drawn[self._count : end] = (raw & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
            self._count = end
        return self._drawn[:count]


def _initial_key(seed: int) -> NDArray[np.uint32]:
    """MT19937's `init_genrand`."""
    key = [seed]
    for i in range(1, 624):
        key.append((1_812_433_253 * (key[-1] ^ (key[-1] >> 30)) + i) & 0xFFFFFFFF)
    return np.array(key, np.uint32)


_lock = Lock()
_streams: dict[int, _Stream] = {}
