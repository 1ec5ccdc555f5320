"""User audio -> rows for the backbone: log-mel, audio encoder, token grouping (SEMANTICS.md 1-3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import RequestError
from ..model import geometry
from ..model.config import ChatConfig
from . import _native
from .backend import Array, Backend
from .prompt import Message


class Hearing:
    """The audio side of a prompt."""

    def __init__(self, backend: Backend, speech_grouping: _native.EmbeddingTable, config: ChatConfig) -> None:
        self._encoder = backend.graph("audio_encoder")
        self._grouping = backend.graph("audio_grouping")
        self._table = speech_grouping
        self._config = config

    def embed(self, message: Message) -> Array:
        """The message's audio as grouped rows [num_groups, H].

        Raises:
            RequestError: a speech id that the codebook does not have.
        """
        if message.speech_ids is not None:
            return self._of_ids(message.speech_ids)
        assert message.audio is not None
        features = self.encode(message.audio)
        groups = geometry.num_groups(geometry.num_slots(len(message.audio)), self._config.group_size)
        rows = np.zeros((groups * self._config.group_size, features.shape[1]), np.float32)
        kept = min(len(rows), len(features))
        rows[:kept] = features[:kept]
        (embeds,) = self._grouping(rows.reshape(groups, self._config.group_size, -1))
        return embeds

    def encode(self, pcm: Array) -> Array:
        """A waveform [N] at 16 kHz to encoder rows [num_encoder_rows, H]."""
        mel = _native.whisper_log_mel(pcm, self._config.audio.num_mels)  # [num_mels, L]
        window, length = self._config.audio.window_frames, mel.shape[1]
        num_windows = -(-length // window)
        padded = np.zeros((len(mel), num_windows * window), np.float32)
        padded[:, :length] = mel
        windows = padded.reshape(len(mel), num_windows, window).transpose(1, 0, 2)
        num_frames = np.full(num_windows, window, np.int64)
        num_frames[-1] = length - (num_windows - 1) * window
        (features,) = self._encoder(np.ascontiguousarray(windows), num_frames)
        return features[: geometry.num_encoder_rows(length)]

    def _of_ids(self, ids: Sequence[int]) -> Array:
        size = self._config.codebook_size
        wrong = [i for i in ids if not 0 <= i < size]
        if wrong:
            raise RequestError(f"speech id {wrong[0]} is outside the codebook; allowed: 0 .. {size - 1}")
        pad = -len(ids) % self._config.group_size
        padded = np.array([*ids, *[self._config.speech_pad_id] * pad], np.int64)
        return self._table.group_mean(padded, self._config.group_size)
