"""Mel -> waveform, piece by piece: each piece is vocoded with as much left context as reaches it (SEMANTICS.md 8)."""

from __future__ import annotations

import numpy as np

from ..model.config import VocoderConfig
from ..model.geometry import F0_LOOK_LEFT, F0_LOOK_RIGHT, vocoder_reach_frames
from ..model.noise import vocoder_noise
from .backend import Array, Graph

PERIOD_FRAMES = 1500  # 30 s, the longest that is ever synthesized whole: noise repeats and phase is wrapped


class VocoderStream:
    """One utterance. Holds back the frames whose samples later mel changes: `look_right` and one more."""

    def __init__(self, source: Graph, vocoder: Graph, config: VocoderConfig) -> None:
        self._source_graph, self._vocoder, self._config = source, vocoder, config
        self._reach = vocoder_reach_frames(config)
        self._mel = np.zeros((1, config.num_mels, 0), np.float32)  # frames from `_first` on
        self._source = np.zeros((1, 1, 0), np.float32)  # samples from frame `_first` on
        self._first = 0
        self._num_sourced = 0  # frames that have a source
        self._num_spoken = 0  # frames that have left as samples
        self._phase = np.zeros((1, 1, config.num_harmonics + 1), np.float64)  # turns after the last of them

    def push(self, mel: Array) -> Array:
        """Takes mel [1, num_mels, F]; returns the samples [N] that it completes."""
        self._mel = np.concatenate([self._mel, mel], axis=2)
        return self._speak(self._end - F0_LOOK_RIGHT, self._end - self._config.look_right - 1)

    def finish(self, mel: Array) -> Array:
        """Takes the last mel; returns all samples that are left. The stream is done."""
        self._mel = np.concatenate([self._mel, mel], axis=2)
        return self._speak(self._end, self._end)

    @property
    def _end(self) -> int:
        return self._first + self._mel.shape[2]

    def _speak(self, source_end: int, end: int) -> Array:
        if source_end > self._num_sourced:
            self._extend_source(source_end)
        if end <= self._num_spoken:
            return np.zeros(0, np.float32)
        per_frame = self._config.samples_per_frame
        begin = max(self._first, self._num_spoken - self._reach)
        mel = self._mel[:, :, begin - self._first :]
        source = np.zeros((1, 1, mel.shape[2] * per_frame), np.float32)
        known = self._source[:, :, (begin - self._first) * per_frame :]
        source[:, :, : known.shape[2]] = known
        (wav,) = self._vocoder(np.ascontiguousarray(mel), source)
        samples = wav[0, (self._num_spoken - begin) * per_frame : (end - begin) * per_frame]
        self._num_spoken = end
        self._forget(min(end - self._reach, self._num_sourced - F0_LOOK_LEFT))
        return samples

    def _extend_source(self, end: int) -> None:
        per_frame = self._config.samples_per_frame
        begin = max(self._first, self._num_sourced - F0_LOOK_LEFT)
        num_context = self._num_sourced - begin
        mel = np.ascontiguousarray(self._mel[:, :, begin - self._first :])
        noise = self._noise(begin, mel.shape[2])
        source, phases = self._source_graph(mel, noise, self._phase, np.array(num_context, np.int64))
        new = source[:, :, num_context * per_frame : (end - begin) * per_frame]
        self._source = np.concatenate([self._source, new], axis=2)
        self._phase = phases[:, end - begin - 1 : end - begin]
        if end // PERIOD_FRAMES > self._num_sourced // PERIOD_FRAMES:
            self._phase = self._phase % 1.0  # whole turns per sample: nothing is heard, and float32 stays fine
        self._num_sourced = end

    def _noise(self, frame: int, num_frames: int) -> Array:
        per_frame, channels = self._config.samples_per_frame, self._config.num_harmonics + 1
        parts = []
        while num_frames:
            begin = frame % PERIOD_FRAMES
            count = min(num_frames, PERIOD_FRAMES - begin)
            parts.append(vocoder_noise(count * per_frame, channels, begin * per_frame))
            frame, num_frames = frame + count, num_frames - count
        return np.concatenate(parts, axis=1)

    def _forget(self, frame: int) -> None:
        drop = max(0, frame - self._first)
        self._mel = self._mel[:, :, drop:]
        self._source = self._source[:, :, drop * self._config.samples_per_frame :]
        self._first += drop
