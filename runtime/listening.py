"""User speech as it arrives -> rows for the backbone, while the user still speaks (SEMANTICS.md 1-3)."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import ArrayLike

from ..errors import AudioError
from ..model import geometry
from ..model.geometry import HOP_SAMPLES, MAX_AUDIO_SECONDS, SAMPLE_RATE_HZ
from . import _native
from .audio import MIN_AUDIO_SECONDS, as_float_pcm
from .backend import Array
from .hearing import Hearing, normalized

HALF_WINDOW_SAMPLES = 200  # of a mel frame, which is centred on its hop


class Listener:
    """One user turn's audio, in chunks of any size; the rows are those of the whole.

    A block of windows is encoded when its last frame is known, with the loudest value heard so far as the reference of
    Whisper's clamp. When a louder value comes and changes what the clamp cuts from a finished block, that block is
    encoded again: at once, while the user still speaks.
    """

    def __init__(self, hearing: Hearing, num_mels: int) -> None:
        self._hearing = hearing
        self._num_mels = num_mels
        self._resampler: soxr.ResampleStream | None = None
        self._rate = SAMPLE_RATE_HZ
        self._parts: list[Array] = []  # the audio at 16 kHz
        self._num_samples = 0
        self._pending = np.zeros(0, np.float32)  # samples from the first one that the next mel frame needs
        self._reflected = False  # whether the beginning was mirrored into `_pending`
        self._blocks: list[_Block] = []
        self._tail = np.zeros((num_mels, 0), np.float32)  # log10 power of the unfinished block
        self._largest = np.float32(-10.0)
        self.num_encoded = 0  # blocks encoded so far, those encoded again included

    @property
    def num_samples(self) -> int:
        """Samples heard, at 16 kHz."""
        return self._num_samples

    @property
    def audio(self) -> Array:
        """All that was heard, 16 kHz float32 [N]."""
        return np.concatenate([np.zeros(0, np.float32), *self._parts])

    @property
    def rows(self) -> Array:
        """Grouped rows [P, H] of the blocks that are finished."""
        return np.concatenate([self._hearing.no_rows, *(block.rows for block in self._blocks)])

    def feed(self, samples: ArrayLike, sample_rate: int = SAMPLE_RATE_HZ) -> None:
        """Takes mono samples [N], float32 or int16; what lies beyond 300 s is refused.

        Raises:
            AudioError: not one-dimensional, not finite, another rate than before, or the turn is longer than 300 s.
        """
        pcm = as_float_pcm(samples, "the audio")
        if sample_rate != self._rate:
            if self._num_samples or self._resampler:
                raise AudioError(f"the audio came at {self._rate} Hz and now at {sample_rate} Hz; keep one rate a turn")
            if sample_rate < 1:
                raise AudioError(f"a sample rate of {sample_rate} Hz is none")
            self._rate = sample_rate
        if sample_rate != SAMPLE_RATE_HZ:
            if self._resampler is None:
                self._resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32")
            pcm = self._resampler.resample_chunk(pcm)
        self._take(pcm)

    def finish(self) -> Array:
        """The end of the turn: grouped rows [P, H] of the whole audio.

        Raises:
            AudioError: shorter than one speech slot.
        """
        if self._resampler is not None:
            self._take(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if not geometry.num_slots(self._num_samples):
            seconds = self._num_samples / SAMPLE_RATE_HZ
            raise AudioError(f"the audio lasts {seconds:.3f} s; {MIN_AUDIO_SECONDS} s or more are needed")
        num_frames = geometry.num_mel_frames(self._num_samples)
        power = np.concatenate([self._tail, self._last_power()], axis=1)
        self._note_largest(power)  # frames after the last valid one count for the clamp
        self._refresh()
        num_finished = len(self._blocks)
        rest = power[:, : num_frames - num_finished * self._hearing.block_frames]
        features = self._hearing.encode_mel(normalized(rest, self._largest))
        num_rows = geometry.num_encoder_rows(num_frames) - num_finished * self._hearing.block_slots
        slots = geometry.num_slots(self._num_samples) - num_finished * self._hearing.block_slots
        return np.concatenate([self.rows, self._hearing.group(features[:num_rows], slots)])

    def _take(self, pcm: Array) -> None:
        if self._num_samples + len(pcm) > MAX_AUDIO_SECONDS * SAMPLE_RATE_HZ:
            raise AudioError(f"the audio is longer than {MAX_AUDIO_SECONDS} s; end the turn before")
        self._parts.append(pcm)
        self._num_samples += len(pcm)
        self._pending = np.concatenate([self._pending, pcm])
        self._mirror_beginning()
        if not self._reflected or len(self._pending) < 2 * HALF_WINDOW_SAMPLES:
            return
        power = _native.log_power(self._pending, self._num_mels)
        self._pending = self._pending[power.shape[1] * HOP_SAMPLES :]
        self._note_largest(power)
        self._tail = np.concatenate([self._tail, power], axis=1)
        while self._tail.shape[1] >= (size := self._hearing.block_frames):
            self._blocks.append(_Block(self._tail[:, :size]))
            self._tail = self._tail[:, size:]
        self._refresh()

    def _mirror_beginning(self) -> None:
        if not self._reflected and len(self._pending) > HALF_WINDOW_SAMPLES:
            self._pending = np.concatenate([self._pending[HALF_WINDOW_SAMPLES:0:-1], self._pending])
            self._reflected = True

    def _last_power(self) -> Array:
        """The frames that still touch a sample; zeros follow the audio."""
        zeros = np.zeros(2 * HALF_WINDOW_SAMPLES, np.float32)
        self._pending = np.concatenate([self._pending, zeros])
        self._mirror_beginning()
        num_touched = (self._num_samples - 1 + HALF_WINDOW_SAMPLES) // HOP_SAMPLES + 1
        num_touched = min(num_touched, MAX_AUDIO_SECONDS * SAMPLE_RATE_HZ // HOP_SAMPLES)
        num_new = num_touched - len(self._blocks) * self._hearing.block_frames - self._tail.shape[1]
        return _native.log_power(self._pending, self._num_mels)[:, :num_new]

    def _note_largest(self, power: Array) -> None:
        if power.size:
            self._largest = max(self._largest, power.max())

    def _refresh(self) -> None:
        """Encodes the finished blocks that are new, and those that the clamp now cuts otherwise."""
        floor = self._largest - np.float32(8.0)
        for block in self._blocks:
            if block.floor is None or (floor > block.floor and floor > block.smallest):
                features = self._hearing.encode_mel(normalized(block.power, self._largest))
                block.rows = self._hearing.group(features, self._hearing.block_slots)
                self.num_encoded += 1
            block.floor = floor


class _Block:
    """A finished stretch of windows."""

    def __init__(self, power: Array) -> None:  # [num_mels, block_frames] log10
        self.power = power
        self.smallest = power.min()
        self.floor: np.float32 | None = None  # where it was cut off
        self.rows: Array = power[:0]  # [groups, H]
