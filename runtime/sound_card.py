"""Microphone and loudspeaker of this machine (sounddevice), and files that stand in for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import RequestError
from ..model.geometry import SAMPLE_RATE_HZ
from .audio import read_audio, write_wav
from .backend import Array
from .events import AudioChunk

BLOCK_SAMPLES = 320  # 20 ms of the microphone
AHEAD_SECONDS = 1.0  # sound that may wait for the loudspeaker
PAUSE_SECONDS = 1.0  # silence between files that stand in for the microphone


class Speaker(Protocol):
    """Where answers are heard."""

    def play(self, chunk: AudioChunk) -> None:
        """Takes more of an answer; waits while much is still to be played."""
        ...

    def drop(self) -> None:
        """Falls silent: what was not played yet is forgotten."""
        ...

    def played_ms(self) -> float:
        """How much of the newest answer was played."""
        ...

    def close(self) -> None:
        """Plays the rest and ends."""
        ...


class Loudspeaker:
    """The sound card's output."""

    def __init__(self, sample_rate: int, device: int | str | None = None) -> None:
        self._rate = sample_rate
        self._waiting = np.zeros(0, np.float32)
        self._turn = self._dropped_turn = 0  # the newest answer, and the newest that was silenced
        self._num_played = self._num_passed = 0  # of the newest answer: samples played, and samples of time since
        self._changed = threading.Condition()
        self._stream = _open("OutputStream", sample_rate, device, self._fill)
        self._stream.start()

    def play(self, chunk: AudioChunk) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < AHEAD_SECONDS * self._rate)
            if chunk.turn <= self._dropped_turn:
                return
            if chunk.turn != self._turn:
                self._turn, self._num_played, self._num_passed = chunk.turn, 0, 0
            self._waiting = np.concatenate([self._waiting, chunk.pcm])

    def drop(self) -> None:
        with self._changed:
            self._waiting, self._dropped_turn = self._waiting[:0], self._turn
            self._changed.notify_all()

    def played_ms(self) -> float:
        heard = self._num_passed - float(self._stream.latency) * self._rate
        return max(0.0, min(self._num_played, heard)) / self._rate * 1e3

    def close(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not len(self._waiting), timeout=2 * AHEAD_SECONDS)
        self._stream.stop()
        self._stream.close()

    def _fill(self, out: Array, frames: int, *_: Any) -> None:
        with self._changed:
            now, self._waiting = self._waiting[:frames], self._waiting[frames:]
            self._num_played += len(now)
            self._num_passed += frames
            out[: len(now), 0], out[len(now) :, 0] = now, 0
            self._changed.notify_all()


class Microphone:
    """The sound card's input, 16 kHz, without end."""

    def __init__(self, device: int | str | None = None) -> None:
        self.level_db = -100.0  # of the newest block, below full scale
        self._blocks: queue.SimpleQueue[Array | None] = queue.SimpleQueue()
        self._stream = _open("InputStream", SAMPLE_RATE_HZ, device, self._take)
        self._stream.start()

    def __iter__(self) -> Iterator[Array]:
        while (block := self._blocks.get()) is not None:
            self.level_db = level_db(block)
            yield block

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()
        self._blocks.put(None)

    def _take(self, block: Array, *_: Any) -> None:
        self._blocks.put(block[:, 0].copy())


class FileMicrophone:
    """Files one after the other, as fast as they are taken, with silence behind each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.level_db = -100.0
        self._pcm = [read_audio(path) for path in paths]

    def __iter__(self) -> Iterator[Array]:
        silence = np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE_HZ), np.float32)
        whole = np.concatenate([part for pcm in self._pcm for part in (pcm, silence)])
        for i in range(0, len(whole), BLOCK_SAMPLES):
            self.level_db = level_db(whole[i : i + BLOCK_SAMPLES])
            yield whole[i : i + BLOCK_SAMPLES]

    def close(self) -> None:
        return None


class FileSpeaker:
    """All answers one after the other in a WAV file; nothing where there is no path."""

    def __init__(self, path: Path | None, sample_rate: int) -> None:
        self._path, self._rate = path, sample_rate
        self._chunks: list[AudioChunk] = []

    def play(self, chunk: AudioChunk) -> None:
        self._chunks.append(chunk)

    def drop(self) -> None:
        return None

    def played_ms(self) -> float:
        newest = self._chunks[-1].turn if self._chunks else 0
        return sum(chunk.duration_ms for chunk in self._chunks if chunk.turn == newest)

    def close(self) -> None:
        if self._path is not None and self._chunks:
            write_wav(self._path, np.concatenate([chunk.pcm for chunk in self._chunks]), self._rate)


def level_db(block: Array) -> float:
    """Root mean square of samples [N], in decibels below full scale; -100 for silence."""
    return float(10 * np.log10(float((block.astype(np.float64) ** 2).mean()) + 1e-10))


def devices() -> str:
    """The sound card's inputs and outputs, a line each.

    Raises:
        RequestError: sounddevice or PortAudio is not installed.
    """
    return str(_sounddevice().query_devices())


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise RequestError("sounddevice is not installed; a microphone needs: pip install 'facrt[live]'") from None
    except OSError as error:
        raise RequestError(f"PortAudio is not installed ({error}); apt install libportaudio2") from None
    return sounddevice


def _open(kind: str, sample_rate: int, device: int | str | None, callback: Any) -> Any:
    sounddevice = _sounddevice()
    try:
        return getattr(sounddevice, kind)(
            samplerate=sample_rate, channels=1, dtype="float32", device=device, callback=callback,
            blocksize=BLOCK_SAMPLES * sample_rate // SAMPLE_RATE_HZ,
        )  # fmt: skip
    except (sounddevice.PortAudioError, ValueError) as error:
        raise RequestError(f"the sound card does not open ({error}); choose a device: facrt chat --devices") from None
