"""What one session hears: 24 kHz PCM in, the user's turns out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import soxr
from numpy.typing import NDArray

from ..model import geometry
from ..model.geometry import SAMPLE_RATE_HZ
from ..runtime.audio import MIN_AUDIO_SECONDS
from ..runtime.turns import Began, Heard, Over, TurnDetector, TurnSettings, open_detector
from .desk import Desk
from .protocol import RATE_HZ, ClientError, ServerVad

INT16_FULL_SCALE = 32768


class Ears:
    """The input audio buffer of a session, and the voice detector before it."""

    def __init__(self, desk: Desk, detector: str | None, max_turn_seconds: float) -> None:
        self._desk, self._detector, self._max_turn_seconds = desk, detector, max_turn_seconds
        self._listener = desk.listener()
        self._resampler = _new_resampler()
        self._turns: TurnDetector | None = None
        self._vad: ServerVad | None = None
        self._begun_ms = 0.0  # where the detector's time begins in all audio
        self.total_ms = 0.0  # all audio of the session

    @property
    def is_hearing(self) -> bool:
        """Whether the buffer holds something."""
        return self._listener.num_samples > 0

    @property
    def is_detecting(self) -> bool:
        return self._turns is not None

    def configure(self, vad: ServerVad | None) -> None:
        """Listens for turns, or takes all audio as one turn; what the buffer holds stays there.

        Raises:
            RequestError: the detector is not installed.
        """
        if vad != self._vad or (vad is not None and self._turns is None):
            self._turns = None if vad is None else self._new_detector(vad)
            self._vad = vad

    def forget(self) -> None:
        """Empties the buffer; the detector goes on."""
        self._listener = self._desk.listener()

    def clear(self) -> None:
        """Empties the buffer, and begins to listen anew."""
        self._listener, self._resampler = self._desk.listener(), _new_resampler()
        if self._vad is not None:
            self._turns = self._new_detector(self._vad)

    async def hear(self, pcm: NDArray[np.int16]) -> list[Began | Heard | Over]:
        """Takes 24 kHz samples [N] of the session; what they mean for its turns, in order.

        Raises:
            ClientError: more than the buffer takes at once.
        """
        seconds = len(pcm) / RATE_HZ
        if self._turns is None:  # else the detector ends a turn at the limit
            seconds += self._listener.num_samples / SAMPLE_RATE_HZ
        if seconds > self._max_turn_seconds:
            reason = f"the input audio buffer would hold {seconds:.1f} s; at most {self._max_turn_seconds:g} s are kept"
            raise ClientError("input_audio_buffer_full", reason)
        self.total_ms += len(pcm) / RATE_HZ * 1e3
        turns, resampler = self._turns, self._resampler

        def work() -> list[Began | Heard | Over]:
            heard = resampler.resample_chunk(pcm.astype(np.float32) / INT16_FULL_SCALE)
            return [Heard(heard)] if turns is None else _joined(turns.feed(heard))

        return await self._desk.hear(work)

    async def keep(self, heard: Heard) -> bool:
        """Adds what was heard to the buffer; whether more of it was encoded.

        Raises:
            AudioError: the turn is longer than the model hears.
        """
        listener = self._listener
        num_encoded = listener.num_encoded
        await self._desk.hear(lambda: listener.feed(heard.pcm))
        return listener.num_encoded > num_encoded

    def rows(self) -> NDArray[np.float32]:
        """What was heard of the unfinished turn so far, [P, H]."""
        return self._listener.rows

    async def finish(self, by_detector: bool) -> tuple[NDArray[np.float32], int]:
        """The turn is over: its rows [P, H] and its length in 16 kHz samples; the buffer is empty.

        Raises:
            ClientError: nothing that could be a turn was heard; the buffer stays.
        """
        listener, resampler, is_manual = self._listener, self._resampler, self._turns is None
        if not geometry.num_slots(listener.num_samples):
            held_ms = listener.num_samples / SAMPLE_RATE_HZ * 1e3
            reason = f"the input audio buffer holds {held_ms:.0f} ms; {MIN_AUDIO_SECONDS * 1e3:.0f} ms are needed"
            raise ClientError("input_audio_buffer_commit_empty", reason)
        if by_detector:
            self.forget()
        else:
            self.clear()

        def work() -> NDArray[np.float32]:
            if is_manual:
                listener.feed(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            return listener.finish()

        return await self._desk.hear(work), listener.num_samples

    def at_ms(self, detector_ms: float) -> int:
        """A time of the detector's in all audio of the session."""
        return round(self._begun_ms + detector_ms)

    def _new_detector(self, vad: ServerVad) -> TurnDetector:
        self._begun_ms = self.total_ms
        settings = TurnSettings(
            threshold=vad.threshold, hysteresis=min(0.15, vad.threshold / 2), min_silence_ms=vad.silence_duration_ms,
            pre_roll_ms=vad.prefix_padding_ms, max_turn_ms=self._max_turn_seconds * 1e3,
        )  # fmt: skip
        return TurnDetector(open_detector(self._detector), settings)


def _new_resampler() -> soxr.ResampleStream:
    return soxr.ResampleStream(RATE_HZ, SAMPLE_RATE_HZ, 1, dtype="float32")


def _joined(found: Iterable[Began | Heard | Over]) -> list[Began | Heard | Over]:
    events: list[Began | Heard | Over] = []
    for what in found:
        if isinstance(what, Heard) and events and isinstance(events[-1], Heard):
            events[-1] = Heard(np.concatenate([events[-1].pcm, what.pcm]))
        else:
            events.append(what)
    return events
