"""A conversation that listens all the time: microphone in, events out, and silence when the user cuts in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
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
    inbox: Channel[Began | Heard | Over] = Channel(CHUNKS_AHEAD)

    def hear() -> None:
        resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        try:
            for samples in microphone:
                pcm = resampler.resample_chunk(as_float_pcm(samples, "the microphone's audio"))
                if not _hand_over(talk, detector.feed(pcm), inbox, barge_in, played_ms):
                    return
            _hand_over(talk, detector.finish(), inbox, False, played_ms)
            inbox.finish()
        except BaseException as error:
            inbox.finish(error)

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    try:
        for item in inbox:
            if isinstance(item, Began):
                yield SpeechStarted(item.at_ms)
            elif isinstance(item, Heard):
                talk.feed(item.pcm)
            else:
                yield SpeechStopped(item.at_ms, item.duration_ms)
                yield from _answer(talk, options)
    finally:
        inbox.close()


def _hand_over(
    talk: Conversation,
    items: Iterable[Began | Heard | Over],
    inbox: Channel[Began | Heard | Over],
    barge_in: bool,
    played_ms: Callable[[], float] | None,
) -> bool:
    for item in items:
        if barge_in and isinstance(item, Began):
            talk.interrupt(None if played_ms is None else played_ms())
        if not inbox.put(item):
            return False
    return True


def _answer(talk: Conversation, options: dict[str, Any]) -> Iterator[Event]:
    try:
        yield from talk.stream(**options)
    except FacrtError as error:
        talk.clear()
        yield Failed(str(error), talk.num_answers)
