"""Speech ids -> waveform: segments, flow matching, vocoder (SEMANTICS.md 6-8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model.config import FlowConfig, VocoderConfig
from ..model.noise import vocoder_noise
from .backend import Array, Backend

SEGMENT_TOKENS = 750  # 30 s
SHORTEST_SEGMENT_TOKENS = 50


class Detokenizer:
    """Offline synthesis: each segment is one independent call with full attention."""

    def __init__(
        self, backend: Backend, flow: FlowConfig, vocoder: VocoderConfig, noise: Array, num_codes: int
    ) -> None:
        # noise: [1, num_mels, N], the flow's fixed start
        self.sample_rate = vocoder.sample_rate
        self._flow_config = flow
        self._num_codes = min(num_codes, flow.vocab_size)
        self._samples_per_frame = vocoder.samples_per_frame
        self._noise_channels = vocoder.num_harmonics + 1
        self._noise = noise
        self.front = backend.graph("flow_front")
        self.estimator = backend.graph("flow_estimator")
        self.source = backend.graph("vocoder_source")
        self.vocoder = backend.graph("vocoder")

    def synthesize(self, speech_ids: Sequence[int], speaker: Array) -> Array:
        """Speech ids (specials are dropped) to 24 kHz float32 [N]; empty where no code is left.

        Args:
            speech_ids: 25 Hz ids.
            speaker: [speaker_dim], not normalized.
        """
        codes = [i for i in speech_ids if 0 <= i < self._num_codes]
        waves = [self.vocode(self.flow(np.array(part), speaker)) for part in segments(codes)]
        return np.concatenate(waves) if waves else np.zeros(0, np.float32)

    def flow(self, tokens: NDArray, speaker: Array) -> Array:
        """Tokens [n] to log-mel [1, num_mels, 2 n]."""
        c = self._flow_config
        if speaker.shape != (c.speaker_dim,):
            raise RequestError(f"the speaker embedding has shape {list(speaker.shape)}, [{c.speaker_dim}] is needed")
        mu, spk = self.front(tokens.astype(np.int64)[None], np.ascontiguousarray(speaker[None], np.float32))
        num_frames = mu.shape[2]
        mu = np.concatenate([mu, np.zeros_like(mu)])  # row 0 guided, row 1 not
        spk = np.concatenate([spk, np.zeros_like(spk)])
        cond, chunk = np.zeros_like(mu), np.array(num_frames)
        x = np.array(self._noise[:, :, :num_frames])
        times = 1 - np.cos(np.linspace(0, 1, c.num_steps + 1, dtype=np.float32) * np.float32(0.5 * np.pi))
        t = times[0]
        for k in range(c.num_steps):
            dt = times[k + 1] - t
            (v,) = self.estimator(np.concatenate([x, x]), mu, np.full(2, t, np.float32), spk, cond, chunk)
            rate = np.float32(c.guidance_rate)
            x = x + dt * ((1 + rate) * v[:1] - rate * v[1:])
            t = t + dt
        return x

    def vocode(self, mel: Array) -> Array:
        """Log-mel [1, num_mels, F] to samples [F * samples_per_frame]."""
        noise = vocoder_noise(mel.shape[2] * self._samples_per_frame, self._noise_channels)
        (source,) = self.source(mel, noise)
        (wav,) = self.vocoder(mel, source)
        return wav[0]


def segments(codes: Sequence[int]) -> list[Sequence[int]]:
    """Pieces of 30 s; a last one under 2 s is merged with the one before and the two are halved."""
    parts = [codes[i : i + SEGMENT_TOKENS] for i in range(0, len(codes), SEGMENT_TOKENS)]
    if len(parts) > 1 and len(parts[-1]) < SHORTEST_SEGMENT_TOKENS:
        joined = [*parts[-2], *parts[-1]]
        half = len(joined) // 2
        parts[-2:] = [joined[:half], joined[half:]]
    return parts
