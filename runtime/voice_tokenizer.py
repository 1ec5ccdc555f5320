"""Waveform -> speech ids (S3 v3), for voice prompts; user speech never passes here (SEMANTICS.md 9)."""

from __future__ import annotations

import numpy as np

from ..model.config import SpeechTokenizerConfig
from . import _native
from .backend import Array, Backend

WINDOW_FRAMES, STRIDE_FRAMES, DROPPED_IDS = 3000, 2600, 50  # 30 s windows; ids dropped at each inner edge


class VoiceTokenizer:
    """The speech tokenizer over windows of 30 s."""

    def __init__(self, backend: Backend, config: SpeechTokenizerConfig) -> None:
        self._graph = backend.graph("speech_tokenizer")
        self._num_mels = config.num_mels

    def encode(self, pcm: Array) -> list[int]:
        """16 kHz samples [N] to 25 Hz ids."""
        mel = _native.reflect_log_mel(pcm, self._num_mels)  # [num_mels, L]
        length = mel.shape[1]
        ids: list[int] = []
        start = 0
        while True:
            (window,) = self._graph(np.ascontiguousarray(mel[None, :, start : start + WINDOW_FRAMES]))
            last = start + WINDOW_FRAMES >= length
            begin = DROPPED_IDS if start else 0
            ids += window[0, begin : None if last else -DROPPED_IDS].tolist()
            if last:
                return ids
            start += STRIDE_FRAMES
