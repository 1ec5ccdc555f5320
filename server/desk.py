"""One engine for all sessions: it hears in one thread and answers in another, each in the order of asking."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..errors import FacrtError, RequestError
from ..runtime.backend import Array
from ..runtime.engine import Engine
from ..runtime.events import AudioChunk, TextDelta
from ..runtime.listening import Listener
from ..runtime.metrics import Waterfall
from ..runtime.pipeline import Answer
from ..runtime.prompt import Message
from .items import Item, messages_of, oldest_turn
from .protocol import ClientError

T = TypeVar("T")
MIN_ROOM_POSITIONS = 128  # of the caches, kept for an answer before an old turn is forgotten: 25 s


class Hearer(Protocol):
    """Whose conversation the caches hold."""

    @property
    def is_hearing(self) -> bool:
        """Whether a user's turn is under way."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What one answer is made of."""

    system: Message
    items: tuple[Item, ...]
    speech: bool
    max_steps: int
    voice: str | None
    may_forget: bool  # old turns, where the caches are too small for all


@dataclass(slots=True)
class Outcome:
    """How an answer ended."""

    text_ids: list[int] = field(default_factory=list)
    groups: list[tuple[float, int]] = field(default_factory=list)  # a group's beginning in ms, text ids so far
    num_prompt: int = 0  # positions
    num_heard: int = 0  # of them, audio
    num_speech: int = 0  # speech ids of the answer
    complete: bool = False
    limited: bool = False  # ended by max_steps or by the caches
    num_forgotten: int = 0  # items, from the oldest on
    phases_ms: dict[str, float] = field(default_factory=dict)


class Ask:
    """One answer, from the moment it is asked for."""

    def __init__(self, question: Question, number: int, tell: Callable[[TextDelta | AudioChunk], None]) -> None:
        self.question, self.number = question, number
        self.waterfall = Waterfall()  # the wait for the engine counts
        self.waited_seconds = 0.0
        self.withdraw: Callable[[], object] = lambda: None  # out of the queue, where it still waits
        self._asked = time.perf_counter()
        self._tell = tell
        self._answer: Answer | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stops the answer within one backbone step, or takes it out of the queue."""
        self._cancelled.set()
        self.withdraw()
        answer = self._answer
        if answer is not None:
            answer.interrupt()

    def run(self, engine: Engine, options: dict[str, Any]) -> Outcome:
        """Makes the answer, and tells its events as they come.

        Raises:
            FacrtError: the question cannot be answered.
        """
        self.waited_seconds = time.perf_counter() - self._asked
        if self._cancelled.is_set():
            return Outcome()
        messages, num_forgotten = _fitting(engine, self.question)
        answer, arguments = engine.begin(
            messages, self.number, self.waterfall, speech=self.question.speech, max_steps=self.question.max_steps,
            speaker=self.question.voice, **options,
        )  # fmt: skip
        self._answer = answer
        outcome = Outcome(num_prompt=len(arguments[0]), num_heard=len(arguments[1]), num_forgotten=num_forgotten)
        if not self._cancelled.is_set():  # looked at after `_answer` is set: `cancel` does it the other way round
            for event in answer.events(*arguments):
                self._tell(event)
            self.waterfall.reach("done")
        self._answer = None
        turn = answer.turn
        room = min(self.question.max_steps, engine.backbone.capacity - outcome.num_prompt)
        outcome.text_ids, outcome.groups, outcome.num_speech = turn.text_ids, answer.groups, len(turn.speech_ids)
        outcome.complete = answer.complete
        ended = bool(turn.text_ids) and turn.text_ids[-1] in arguments[2].eos_ids(engine.config.eos_ids)
        outcome.limited = outcome.complete and not ended and len(turn.text_ids) >= room
        outcome.phases_ms = self.waterfall.ms
        return outcome


def _fitting(engine: Engine, question: Question) -> tuple[list[Message], int]:
    """The messages, without the oldest turns where they leave too little room; how many items are left out."""
    items: Sequence[Item] = question.items
    while True:
        messages = [question.system, *messages_of(items)]
        size = oldest_turn(items)
        room = engine.backbone.capacity - len(engine.prompter.encode(messages))
        if not question.may_forget or not size or room >= min(question.max_steps, MIN_ROOM_POSITIONS):
            return messages, len(question.items) - len(items)
        items = items[size:]


class Desk:
    """Shares an engine. For the event loop's thread, but for what its own two threads do."""

    def __init__(self, engine: Engine, max_waiting: int, options: dict[str, Any] | None = None) -> None:
        """
        Args:
            engine: for this server alone.
            max_waiting: answers that wait, beside the one that is made.
            options: of `Engine.begin`, for every answer.
        """
        self.engine = engine
        self._options = options or {}
        self._max_waiting = max_waiting
        self._ears = ThreadPoolExecutor(1, "ears")
        self._mouth = ThreadPoolExecutor(1, "mouth")
        self._num_asked = 0  # answers that wait or are made
        self._owner: Hearer | None = None

    @property
    def num_waiting(self) -> int:
        """Answers that wait for another one to end."""
        return max(0, self._num_asked - 1)

    @property
    def has_audio(self) -> bool:
        return self.engine.has_audio

    def system_prompt(self, speech: bool) -> str:
        """What conversations begin with, where nobody says otherwise."""
        return self.engine.system_prompt(speech)

    @property
    def speakers(self) -> list[str]:
        return list(self.engine.bundle.manifest.speakers)

    @property
    def sample_rate(self) -> int:
        """Of answers, Hz."""
        return self.engine.detokenizer.sample_rate if self.engine.detokenizer else 0

    async def hear(self, work: Callable[[], T]) -> T:
        """Runs what listens, in the thread for it."""
        return await asyncio.get_running_loop().run_in_executor(self._ears, work)

    def decode(self, text_ids: Sequence[int]) -> str:
        """The words of an answer."""
        return self.engine.prompter.decode(text_ids)

    def listener(self) -> Listener:
        """Hears one user turn."""
        return self.engine.listener()

    async def embed(self, pcm: Array) -> Array:
        """A whole user audio [N] at 16 kHz -> rows [P, H]."""
        return await self.hear(lambda: self.engine.hearing.embed(Message("user", None, pcm)))

    async def check(self, messages: list[Message]) -> None:
        """
        Raises:
            RequestError: a text holds the model's own marks, or is longer than the caches.
        """
        ids = await self.hear(lambda: self.engine.prompter.encode(messages))
        if len(ids) >= self.engine.backbone.capacity:
            raise RequestError(f"the text has {len(ids)} tokens; the caches hold {self.engine.backbone.capacity}")

    async def read_ahead(self, hearer: Hearer, messages: list[Message], rows: Array, speech: bool) -> None:
        """Reads a turn's beginning where the engine is idle and no other turn's beginning would be forgotten for it."""
        if self._num_asked or (self._owner is not None and self._owner is not hearer and self._owner.is_hearing):
            return
        self._owner = hearer
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._mouth, self.engine.read_ahead, messages, rows, speech)
        except FacrtError:
            return  # too long or refused by the template: the answer will say so, or forget old turns

    def answer(self, hearer: Hearer, ask: Ask) -> asyncio.Future[Outcome]:
        """Queues an answer.

        Raises:
            ClientError: as many wait already as may.
        """
        if self._num_asked > self._max_waiting:
            reason = f"{self._max_waiting} answers wait for the engine, as many as may; try again in a moment"
            raise ClientError("busy", reason)
        self._num_asked += 1

        def run() -> Outcome:
            self._owner = hearer
            return ask.run(self.engine, self._options)

        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        pending = self._mouth.submit(run)
        ask.withdraw = pending.cancel

        def ended() -> None:
            self._num_asked -= 1
            if pending.cancelled():
                answer.set_result(Outcome())
            elif (error := pending.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(pending.result())

        pending.add_done_callback(lambda _: loop.call_soon_threadsafe(ended))
        return answer

    def leave(self, hearer: Hearer) -> None:
        """A session ends."""
        if self._owner is hearer:
            self._owner = None

    def close(self) -> None:
        """Ends both threads, behind what they still do."""
        self._ears.shutdown(wait=True, cancel_futures=True)
        self._mouth.shutdown(wait=True, cancel_futures=True)
