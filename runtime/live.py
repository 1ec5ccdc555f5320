"""A conversation that listens all the time: microphone in, events out, and silence when the user cuts in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import soxr
from numpy.typing import ArrayLike

from ..errors import FacrtError
from ..model.geometry import SAMPLE_RATE_HZ
from .audio import as_float_pcm
from .channel import Channel
from .events import Event, Failed, SpeechStarted, SpeechStopped
from .turns import Began, Heard, Over, TurnDetector

if TYPE_CHECKING:
    from .conversation import Conversation

CHUNKS_AHEAD = 1 << 20  # a microphone is never made to wait


def listen(
    talk: Conversation,
    microphone: Iterable[ArrayLike],
    sample_rate: int,
    detector: TurnDetector,
    barge_in: bool,
    played_ms: Callable[[], float] | None,
    options: dict[str, Any],
) -> Iterator[Event]:
    """`Conversation.listen`. The microphone is read in a thread of its own, which also interrupts."""
    inbox: Channel[_Item] = Channel(CHUNKS_AHEAD)

    def hear() -> None:
        resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        try:
            for samples in microphone:
                pcm = resampler.resample_chunk(as_float_pcm(samples, "the microphone's audio"))
                if not _hand_over(talk, detector.feed(pcm), inbox, barge_in, played_ms):
                    return
            _hand_over(talk, detector.finish(), inbox, False, None)
            inbox.finish()
        except BaseException as error:
            inbox.finish(error)

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    try:
        fault: FacrtError | None = None
        for item in inbox:
            if isinstance(item.what, Began):
                fault = None
                if item.played_ms is not None:
                    talk.truncate(item.played_ms)
                yield SpeechStarted(item.what.at_ms)
            elif isinstance(item.what, Heard):
                fault = fault or _fed(talk, item.what)
            else:
                yield SpeechStopped(item.what.at_ms, item.what.duration_ms)
                yield from _answer(talk, fault, item.generation, options)
    finally:
        inbox.close()


@dataclass(frozen=True, slots=True)
class _Item:
    what: Began | Heard | Over
    generation: int  # of the conversation, then
    played_ms: float | None = None  # of the newest answer, where the user cut in


def _hand_over(
    talk: Conversation,
    found: Iterable[Began | Heard | Over],
    inbox: Channel[_Item],
    barge_in: bool,
    played_ms: Callable[[], float] | None,
) -> bool:
    for what in found:
        played = None
        if barge_in and isinstance(what, Began):
            played = None if played_ms is None else played_ms()
            talk.interrupt(played)
        if not inbox.put(_Item(what, talk.generation, played)):
            return False
    return True


def _fed(talk: Conversation, heard: Heard) -> FacrtError | None:
    try:
        talk.feed(heard.pcm)
    except FacrtError as error:
        return error
    return None


def _answer(talk: Conversation, fault: FacrtError | None, generation: int, options: dict[str, Any]) -> Iterator[Event]:
    try:
        if fault is not None:
            raise fault
        yield from talk.stream(generation=generation, **options)
    except FacrtError as error:
        talk.clear()
        yield Failed(str(error), talk.num_answers)
