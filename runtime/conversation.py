"""A conversation of several turns: user audio or text, assistant text (SEMANTICS.md 5, multi-turn)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ..errors import RequestError
from ..model.geometry import SAMPLE_RATE_HZ
from .backend import Array
from .events import AudioChunk, EndReason, Event, TextDelta, ToolCall, ToolCallFailed, TurnEnded
from .listening import Listener
from .live import listen
from .metrics import Waterfall
from .prompt import Message
from .tools import CallReader, Tool, Toolbox, response_text
from .turns import TurnDetector, TurnSettings, open_detector

if TYPE_CHECKING:
    from .engine import Engine, Reply
    from .pipeline import Answer

MAX_ROUNDS = 4  # answers to one turn, where each calls tools


class Conversation:
    """The history of one partner.

    User audio is heard once. An answer is remembered as text, as upstream does: the caches keep the prompt up to the
    answer, and the answer's words are read again at the next turn. For one thread at a time, but for `interrupt`.
    """

    def __init__(
        self,
        engine: Engine,
        system: str | None = None,
        speech: bool = True,
        tools: Sequence[Tool] = (),
        max_turns: int | None = None,
    ) -> None:
        if max_turns is not None and max_turns < 1:
            raise RequestError(f"max_turns {max_turns} is not at least 1")
        self._toolbox = Toolbox(tools)
        told = engine.system_prompt(speech) if system is None else system
        self.messages = [Message("system", told + self._toolbox.describe())]
        self.num_answers = 0
        self._engine = engine
        self._speech = speech
        self._listener: Listener | None = None
        self.generation = 0  # counts interruptions
        self._max_turns = max_turns
        self._answer: Answer | None = None  # on its way
        self._newest: Answer | None = None  # in the history
        self._played_ms: float | None = None
        self._num_calls = 0
        self._open_calls: set[str] = set()  # that wait for the host
        self._results: dict[str, Any] = {}  # of the newest answer's calls, in their order

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()
        self.messages.clear()

    def respond(
        self, audio: str | Path | np.ndarray | None = None, *, text: str | None = None, **options: Any
    ) -> Reply:
        """Answers one user turn in one piece, and remembers both sides of it; a turn that fails is not remembered.

        Tools are run by `stream` only.

        Args:
            audio: a file, or 16 kHz mono samples [N].
            text: beside the audio, or instead of it.
            options: as in `Engine.answer`.

        Raises:
            AudioError, RequestError: the input cannot be used.
        """
        if audio is None and text is None:
            raise RequestError("a turn needs audio or text")
        pcm = None if audio is None else self._engine.read(audio)
        started = time.perf_counter()
        question = self._question(text, pcm)
        heard_ms = (time.perf_counter() - started) * 1e3
        reply = self._engine.answer([*self.messages, question], speech=self._speech, **options)
        t = reply.timings
        timings = replace(t, encode_ms=t.encode_ms + heard_ms, total_ms=t.total_ms + heard_ms)
        reply = replace(reply, timings=timings)
        self.messages += [question, Message("assistant", reply.text)]
        return reply

    def feed(self, samples: ArrayLike, sample_rate: int = SAMPLE_RATE_HZ) -> None:
        """Hears more of the user's turn: mono [N] of any length, float32 or int16.

        Encodes each window that is complete, and lets the backbone and the speech head read them.

        Raises:
            AudioError: the samples cannot be used, or the turn is longer than 300 s.
            RequestError: the conversation is longer than the caches.
        """
        if self._listener is None:
            self._listener = self._engine.listener()
            self._engine.read_ahead(self.messages, self._listener.rows, self._speech)
        num_encoded = self._listener.num_encoded
        self._listener.feed(samples, sample_rate)
        if self._listener.num_encoded > num_encoded:
            self._engine.read_ahead(self.messages, self._listener.rows, self._speech)

    def clear(self) -> None:
        """Forgets what was fed since the last turn."""
        self._listener = None

    @property
    def fed_ms(self) -> float:
        """How much of the user's turn was heard."""
        return 0.0 if self._listener is None else self._listener.num_samples / SAMPLE_RATE_HZ * 1e3

    @property
    def is_answering(self) -> bool:
        """Whether an answer is on its way."""
        return self._answer is not None

    def stream(
        self,
        audio: str | Path | np.ndarray | None = None,
        *,
        text: str | None = None,
        generation: int | None = None,
        **options: Any,
    ) -> Iterator[TextDelta | AudioChunk | ToolCall | ToolCallFailed | TurnEnded]:
        """Answers the turn that was fed, or the one given, in events; the last is `TurnEnded`.

        Generation, synthesis and the consumer run at the same time; a slow consumer slows the others. Leaving the
        iteration early is an interruption.

        Args:
            audio, text: as in `respond`; without both, the audio that was fed is the turn, or the results of tools.
            generation: `generation` when the turn ended; an interruption since then counts for this answer.
            options: as in `Engine.answer`, and `plan`, a `BlockPlan`.

        Raises:
            AudioError, RequestError: the input cannot be used; the turn is not remembered.
        """
        waterfall = Waterfall()
        generation = self.generation if generation is None else generation
        question = self._committed(text, audio)
        waterfall.reach("heard")
        for _ in range(MAX_ROUNDS):
            end = yield from self._stream_one(question, waterfall, generation, options)
            if self._open_calls or not self._results or end.reason == "interrupted":
                break
            question = Message("user", response_text(self._take_results()))
        yield end

    def _stream_one(
        self, question: Message, waterfall: Waterfall, generation: int, options: dict[str, Any]
    ) -> Generator[TextDelta | AudioChunk | ToolCall | ToolCallFailed, None, TurnEnded]:
        """One answer; the tools that it calls are run where they can be."""
        self.num_answers += 1
        answer, arguments = self._engine.begin(
            [*self.messages, question], self.num_answers, waterfall, speech=self._speech, **options
        )
        self._played_ms, reader = None, CallReader()
        self._answer = answer
        if self.generation != generation:  # looked at after `_answer` is set: `interrupt` does it the other way round
            answer.interrupt()
        try:
            for event in answer.events(*arguments):
                if isinstance(event, TextDelta) and self._toolbox.tools:
                    yield from self._read_calls(reader.feed(event.text))
                else:
                    yield event
        finally:
            self._answer = None
            if answer.complete or answer.interrupted:
                self.messages += [question, Message("assistant", self._kept_text(answer, self._played_ms))]
                self._newest = answer
                self._forget_old_turns()
        if answer.complete:
            unclosed, rest = reader.finish()
            if unclosed:
                yield ToolCallFailed("the call is never closed", rest, self.num_answers)
            elif rest:
                yield TextDelta(rest, self.num_answers)
        waterfall.reach("done")
        turn, reason = answer.turn, cast(EndReason, "done" if answer.complete else "interrupted")
        return TurnEnded(
            self.messages[-1].text or "", turn.text_ids, turn.speech_ids, reason, answer.number, waterfall.ms
        )

    def _read_calls(self, parts: Iterable[tuple[bool, str]]) -> Iterator[TextDelta | ToolCall | ToolCallFailed]:
        for is_call, text in parts:
            if not is_call:
                yield TextDelta(text, self.num_answers)
                continue
            self._num_calls += 1
            call = self._toolbox.read(text, f"call_{self._num_calls}", self.num_answers)
            yield call
            if isinstance(call, ToolCall):
                self._results[call.call_id] = None
                if self._toolbox.tools[call.name].run is None:
                    self._open_calls.add(call.call_id)
                else:
                    self._results[call.call_id] = self._toolbox.run(call)

    def tool_result(self, call_id: str, result: Any) -> None:
        """Answers a `ToolCall` that the host runs; when all are answered, `stream()` without a turn tells the model.

        Args:
            call_id: the event's.
            result: anything that JSON can hold.

        Raises:
            RequestError: no such call is open.
        """
        if call_id not in self._open_calls:
            raise RequestError(f"call {call_id!r} is not open; open: {', '.join(sorted(self._open_calls)) or 'none'}")
        self._open_calls.discard(call_id)
        self._results[call_id] = result

    def _take_results(self) -> list[Any]:
        results = list(self._results.values())
        self._results.clear()
        return results

    def listen(
        self,
        microphone: Iterable[ArrayLike],
        sample_rate: int = SAMPLE_RATE_HZ,
        *,
        turns: TurnSettings | None = None,
        detector: str | None = None,
        barge_in: bool = True,
        played_ms: Callable[[], float] | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        """Listens until the microphone ends, and answers each turn.

        Without echo cancellation take headphones, or `barge_in=False`: else the answer counts as the user's voice.

        Args:
            microphone: chunks of mono samples, float32 or int16, of any length; read in a thread of its own.
            sample_rate: the microphone's, Hz.
            turns: what counts as a turn.
            detector: "silero" or "energy"; default: silero where it is installed.
            barge_in: whether the user's voice interrupts an answer.
            played_ms: how much of the newest answer's audio was heard so far; called when the user begins to speak, in
                the microphone's thread, so that it may also silence the loudspeaker. Default: all that was handed out.
            options: as in `stream`.

        Raises:
            RequestError: the detector is unknown or not installed.
            AudioError: the microphone gives what is no audio.
        """
        turn_detector = TurnDetector(open_detector(detector), turns)
        return listen(self, microphone, sample_rate, turn_detector, barge_in, played_ms, options)

    def interrupt(self, played_ms: float | None = None) -> None:
        """Stops the answer that is on its way; may be called from any thread.

        The history keeps the words of the speech groups that began to be played.

        Args:
            played_ms: how much of the answer's audio was heard; default: all that was handed out.
        """
        self.generation += 1
        answer = self._answer
        if answer is not None:
            self._played_ms = played_ms
            answer.interrupt()

    def truncate(self, played_ms: float) -> None:
        """Says how much of the newest answer was heard, once it is over: the history keeps the words up to there."""
        if self._newest is not None and self.messages and self.messages[-1].role == "assistant":
            self.messages[-1] = Message("assistant", self._kept_text(self._newest, played_ms))

    def _forget_old_turns(self) -> None:
        users = [i for i, message in enumerate(self.messages) if message.role == "user"]
        if self._max_turns is not None and len(users) > self._max_turns:
            del self.messages[users[0] : users[-self._max_turns]]

    def _question(self, text: str | None, pcm: Array | None) -> Message:
        if pcm is None:
            return Message("user", text)
        return Message("user", text, pcm, rows=self._engine.hearing.embed(Message("user", None, pcm)))

    def _committed(self, text: str | None, audio: str | Path | np.ndarray | None) -> Message:
        nothing = audio is None and text is None and self._listener is None
        if nothing and self._open_calls:
            raise RequestError(f"call {min(self._open_calls)!r} waits for its tool_result")
        results = self._take_results()
        self._open_calls.clear()
        if nothing and results:
            return Message("user", response_text(results))
        if nothing:
            raise RequestError("nothing was fed: a turn needs audio or text")
        if audio is not None or self._listener is None:
            return self._question(text, None if audio is None else self._engine.read(audio))
        listener, self._listener = self._listener, None
        rows = listener.finish()
        return Message("user", text, listener.audio, rows=rows)

    def _kept_text(self, answer: Answer, played_ms: float | None) -> str:
        """The words of an answer up to the ones beside the last speech group that began to be played."""
        decode = self._engine.prompter.decode
        if not answer.sample_rate:
            return decode(answer.turn.text_ids) if answer.complete else answer.sent_text
        sent_ms = answer.sent_samples / answer.sample_rate * 1e3
        played_ms = sent_ms if played_ms is None else played_ms
        if answer.complete and played_ms >= sent_ms:
            return decode(answer.turn.text_ids)
        num_ids = max((text_ids for begin_ms, text_ids in answer.groups if begin_ms < played_ms), default=0)
        return decode(answer.turn.text_ids[:num_ids])
