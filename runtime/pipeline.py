"""One answer as a stream: generation and detokenizer in threads of their own, bounded queues between them."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..model.settings import GenerationSettings
from ..model.turn import Turn
from .backend import Array
from .channel import Channel
from .detokenizer import SpeechStream
from .events import AudioChunk, Event, TextDelta
from .generate import Loop, LoopTimings
from .metrics import Waterfall

GROUPS_AHEAD = 8  # speech groups that generation may be ahead of the detokenizer
EVENTS_AHEAD = 8  # events that the detokenizer may be ahead of the consumer
REPLACEMENT = "\ufffd"  # the text decoder's sign of a character that is not whole yet


class Answer:
    """One answer on its way. `interrupt` may be called from any thread; the rest belongs to the consumer's."""

    def __init__(
        self,
        loop: Loop,
        decode: Callable[[list[int]], str],
        turn: Turn,
        number: int,
        waterfall: Waterfall,
        speech: SpeechStream | None,
        sample_rate: int,
    ) -> None:
        self.turn, self.waterfall, self.number = turn, waterfall, number
        self.groups: list[tuple[float, int]] = []  # of each stored group: where its sound begins in ms, text ids so far
        self.sent_samples = 0  # handed to the consumer
        self.sent_text = ""
        self.interrupted = False
        self.complete = False  # all of it was handed to the consumer
        self.timings = LoopTimings()
        self.sample_rate = sample_rate
        self._loop, self._decode, self._speech = loop, decode, speech
        self._threads: tuple[threading.Thread, ...] = ()
        self._groups: Channel[list[int]] = Channel(GROUPS_AHEAD)
        self._events: Channel[Event] = Channel(EVENTS_AHEAD)

    def interrupt(self) -> None:
        """Generation stops within one backbone step; what is queued is dropped."""
        self.interrupted = True
        self._groups.close()
        self._events.close()

    def end(self) -> None:
        """Interrupts the answer and waits until nothing of it runs any more."""
        self.interrupt()
        for thread in self._threads:
            thread.join()

    def events(
        self, prompt_ids: NDArray[np.int64], audio_embeds: Array, settings: GenerationSettings
    ) -> Iterator[TextDelta | AudioChunk]:
        """Runs the answer; ends when it is over or interrupted. A consumer that stops early interrupts it."""
        arguments = (prompt_ids, audio_embeds, settings)
        generation = threading.Thread(target=self._generate, args=arguments, name="generation", daemon=True)
        synthesis = threading.Thread(target=self._synthesize, name="synthesis", daemon=True)
        self._threads = (generation, synthesis)
        _running.add(self)
        generation.start()
        synthesis.start()
        try:
            for event in self._events:
                if isinstance(event, AudioChunk):
                    self.sent_samples += len(event.pcm)
                    self.waterfall.reach("first_audio")
                elif isinstance(event, TextDelta):
                    self.sent_text += event.text
                    self.waterfall.reach("first_text")
                yield event  # type: ignore[misc]
            self.complete = not self.interrupted
        except GeneratorExit:
            self.interrupted = True
            raise
        finally:
            self._groups.close()
            self._events.close()
            generation.join()  # it shares the caches with the next answer
            if self.complete:  # else its block may take a while, and nobody waits for it
                synthesis.join()

    def _generate(self, prompt_ids: NDArray[np.int64], audio_embeds: Array, settings: GenerationSettings) -> None:
        said, sound_ms = "", 0.0
        try:
            for stored in self._loop.steps(self.turn, prompt_ids, audio_embeds, settings, self.timings):
                self.waterfall.reach("prefill")
                if stored is not None:
                    self.waterfall.reach("first_group")
                    self.groups.append((sound_ms, len(self.turn.text_ids)))
                    sound_ms += self._speech.duration_ms(stored) if self._speech is not None else 0.0
                text = self._decode(self.turn.text_ids)
                if len(text) > len(said) and (self.turn.done or not text.endswith(REPLACEMENT)):
                    delta, said = text[len(said) :], text
                    if not self._events.put(TextDelta(delta, self.number)):
                        return
                if stored is not None and not self._groups.put(stored):
                    return
                if self.interrupted:
                    return
            self._groups.finish()
        except BaseException as error:
            self._groups.finish(error)

    def _synthesize(self) -> None:
        num_samples = 0
        try:
            for group in self._groups:
                if self._speech is not None:
                    num_samples = self._send(self._speech.push(group), num_samples)
            if self._speech is not None and not self.interrupted:
                self._send(self._speech.finish(), num_samples)
            self._events.finish()
        except BaseException as error:
            self._events.finish(error)

    def _send(self, pcm: Array, start: int) -> int:
        if len(pcm):
            self._events.put(AudioChunk(pcm, self.sample_rate, start / self.sample_rate * 1e3, self.number))
        return start + len(pcm)


_running: weakref.WeakSet[Answer] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread that computes natively while the interpreter goes down would abort the process."""
    for answer in list(_running):
        answer.end()
