"""User audio -> rows for the backbone: log-mel, audio encoder, token grouping (SEMANTICS.md 1-3)."""

from __future__ import annotations

import math
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
        half, group = config.audio.half_window_frames, config.group_size
        num_windows = 2 * group // math.gcd(half, 2 * group)  # so many make whole pairs and whole groups
        self.block_frames = num_windows * config.audio.window_frames  # mel frames that are encoded on their own
        self.block_slots = num_windows * half // 2
        self.no_rows = np.zeros((0, config.text.hidden_size), np.float32)

    def embed(self, message: Message) -> Array:
        """The message's audio as grouped rows [num_groups, H].

        Raises:
            RequestError: a speech id that the codebook does not have.
        """
        if message.rows is not None:
            return message.rows
        if message.speech_ids is not None:
            return self._of_ids(message.speech_ids)
        assert message.audio is not None
        return self.group(self.encode(message.audio), geometry.num_slots(len(message.audio)))

    def encode(self, pcm: Array) -> Array:
        """A waveform [N] at 16 kHz to encoder rows [num_encoder_rows, H]."""
        mel = _native.whisper_log_mel(pcm, self._config.audio.num_mels)  # [num_mels, L]
        return self.encode_mel(mel)[: geometry.num_encoder_rows(mel.shape[1])]

    def encode_mel(self, mel: Array) -> Array:
        """Log-mel [num_mels, L] from a window's beginning on to encoder rows, of which the last may be too many."""
        size, length = self._config.audio.window_frames, mel.shape[1]
        num_windows = -(-length // size)
        if not num_windows:
            return self.no_rows
        padded = np.zeros((len(mel), num_windows * size), np.float32)
        padded[:, :length] = mel
        windows = padded.reshape(len(mel), num_windows, size).transpose(1, 0, 2)
        num_frames = np.full(num_windows, size, np.int64)
        num_frames[-1] = length - (num_windows - 1) * size
        (features,) = self._encoder(np.ascontiguousarray(windows), num_frames)
        return features

    def group(self, features: Array, num_slots: int) -> Array:
        """Encoder rows [R, H] to grouped rows [num_groups, H]; missing rows are zeros, rows too many are dropped."""
        groups = geometry.num_groups(num_slots, self._config.group_size)
        if not groups:
            return self.no_rows
        rows = np.zeros((groups * self._config.group_size, features.shape[1]), np.float32)
        kept = min(len(rows), len(features))
        rows[:kept] = features[:kept]
        (embeds,) = self._grouping(rows.reshape(groups, self._config.group_size, -1))
        return embeds

    def _of_ids(self, ids: Sequence[int]) -> Array:
        size = self._config.codebook_size
        wrong = [i for i in ids if not 0 <= i < size]
        if wrong:
            raise RequestError(f"speech id {wrong[0]} is outside the codebook; allowed: 0 .. {size - 1}")
        pad = -len(ids) % self._config.group_size
        padded = np.array([*ids, *[self._config.speech_pad_id] * pad], np.int64)
        return self._table.group_mean(padded, self._config.group_size)


def normalized(power: Array, largest: np.float32) -> Array:
    """Log10 mel power [num_mels, F] as the audio encoder takes it, given the loudest value of the whole audio."""
    return (np.maximum(power, largest - np.float32(8.0)) + np.float32(4.0)) * np.float32(0.25)
