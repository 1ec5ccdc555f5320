"""One client's conversation: its events in, the server's out, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import soxr

from ..errors import FacrtError
from ..model.geometry import SAMPLE_RATE_HZ
from ..runtime.audio import checked_pcm
from ..runtime.events import AudioChunk, TextDelta
from ..runtime.prompt import Message
from ..runtime.tools import Tool, Toolbox
from ..runtime.turns import Began, Heard
from . import protocol
from .desk import Ask, Desk, Outcome, Question
from .ears import Ears
from .items import History, Item, function_call, function_call_output, messages_of, new_id, user_audio, written_message
from .limits import Limits
from .meters import Meters
from .outbox import Outbox
from .protocol import RATE_HZ, ClientError, FunctionTool, SessionConfig, pcm_of
from .response import Response, Shape


class Session:
    """Speaks the Realtime API; whatever the client sends, `receive` answers with events and never raises."""

    def __init__(
        self,
        desk: Desk,
        outbox: Outbox,
        limits: Limits,
        meters: Meters,
        model: str,
        detector: str | None = None,
        system: str | None = None,
    ) -> None:
        """
        Args:
            desk: the engine.
            outbox: takes the events for the client.
            limits, meters: of the server.
            model: the name that the session shows.
            detector: "silero" or "energy"; default: silero where it is installed.
            system: the instructions until the client gives some; default: the bundle's.

        Raises:
            RequestError: the detector is unknown or not installed.
        """
        self.id = new_id("sess")
        self._desk, self._outbox, self._limits, self._meters = desk, outbox, limits, meters
        self._history = History(limits.max_items)
        self._conversation_id = new_id("conv")
        self._expires_at = int(time.time() + limits.max_session_seconds)
        modality = "audio" if desk.has_audio else "text"
        self._config = SessionConfig(model=model, instructions=system).updated({"output_modalities": [modality]})
        self._toolbox = Toolbox([])
        self._ears = Ears(desk, detector, limits.max_turn_seconds)
        self._ears.configure(self._config.audio.input.turn_detection)
        self._coming_id = new_id("item")  # of the user's turn under way
        self._fault: FacrtError | None = None  # of that turn
        self._response: Response | None = None
        self._ask: Ask | None = None
        self._task: asyncio.Task[None] | None = None
        self._num_answers = 0
        self._handlers: dict[type, Callable[[Any], Awaitable[None]]] = {
            protocol.SessionUpdate: self._update,
            protocol.Append: self._append,
            protocol.Commit: self._commit,
            protocol.Clear: self._clear,
            protocol.ItemCreate: self._create_item,
            protocol.ItemRetrieve: self._retrieve,
            protocol.ItemDelete: self._delete,
            protocol.ItemTruncate: self._truncate,
            protocol.ResponseCreate: self._respond,
            protocol.ResponseCancel: self._cancel,
        }
        self._emit("session.created", session=self._json())

    async def receive(self, text: str) -> None:
        """Takes one message of the client."""
        event_id = None
        try:
            event = protocol.parse(text, self._limits.max_message_bytes)
            event_id = event.event_id
            await self._handlers[type(event)](event)
        except ClientError as error:
            error.event_id = error.event_id or event_id
            self.refuse(error)
        except FacrtError as error:
            self.refuse(ClientError("invalid_request", str(error), event_id=event_id))

    def refuse(self, error: FacrtError) -> None:
        """Tells the client what is not done, and why."""
        event = protocol.error_event(error)
        self._meters.refused(event["error"]["code"])
        self._outbox.put(event)

    async def close(self) -> None:
        """The client is gone: its answer ends, and the engine is free for others."""
        self._stop("client_cancelled")
        if self._task is not None:
            await asyncio.wait([self._task])
        self._desk.leave(self._ears)

    # the session

    async def _update(self, event: protocol.SessionUpdate) -> None:
        config = self._config.updated(event.session)
        if config.model != self._config.model:
            reason = f"session.model: this session's model is {self._config.model!r} and stays"
            raise ClientError("invalid_value", reason, "session.model")
        self._check_output(config.output_modalities[0], config.audio.output.voice, "session.")
        toolbox = self._read_tools(config.tools, "session.tools")
        await self._check_system(config.instructions, toolbox)
        self._ears.configure(config.audio.input.turn_detection)
        self._config, self._toolbox = config, toolbox
        self._emit("session.updated", session=self._json())

    def _check_output(self, modality: str, voice: str | None, where: str) -> None:
        if modality == "audio" and not self._desk.has_audio:
            reason = f"{where}output_modalities: this bundle has no detokenizer, so no audio; allowed: text"
            raise ClientError("invalid_value", reason, f"{where}output_modalities")
        if voice is not None and voice not in self._desk.speakers:
            reason = f"{where}audio.output.voice: {voice[:64]!r} is unknown; allowed: {', '.join(self._desk.speakers)}"
            raise ClientError("invalid_value", reason, f"{where}audio.output.voice")

    def _read_tools(self, tools: Sequence[FunctionTool], where: str) -> Toolbox:
        try:
            return Toolbox([Tool(tool.name, tool.description, tool.parameters) for tool in tools])
        except FacrtError as error:
            raise ClientError("invalid_value", f"{where}: {error}", where) from None

    async def _check_system(self, instructions: str | None, toolbox: Toolbox) -> None:
        if instructions is not None or toolbox.tools:
            await self._check_text(Message("system", (instructions or "") + toolbox.describe()))

    async def _check_text(self, *messages: Message) -> None:
        size = sum(len(message.text or "") for message in messages)
        if size > self._limits.max_text_chars:
            reason = f"{size} characters of text; at most {self._limits.max_text_chars} are taken"
            raise ClientError("invalid_value", reason)
        await self._desk.check(list(messages))

    # what the user says

    async def _append(self, event: protocol.Append) -> None:
        pcm = pcm_of(event.audio)
        self._meters.heard(len(pcm) / RATE_HZ)
        for what in await self._ears.hear(pcm):
            if isinstance(what, Began):
                self._begin_turn(what.at_ms)
            elif isinstance(what, Heard):
                await self._keep(what)
            else:
                try:
                    await self._end_turn(what.at_ms)
                except FacrtError as error:  # the rest of the audio is heard all the same
                    self.refuse(error)

    def _begin_turn(self, at_ms: float) -> None:
        vad = self._config.audio.input.turn_detection
        self._coming_id, self._fault = new_id("item"), None
        padding_ms = vad.prefix_padding_ms if vad else 0
        start_ms = max(0, self._ears.at_ms(at_ms) - padding_ms)
        self._emit("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=self._coming_id)
        if vad is None or vad.interrupt_response:
            self._stop("turn_detected")

    async def _keep(self, heard: Heard) -> None:
        if self._fault is not None:
            return
        try:
            more = await self._ears.keep(heard)
        except FacrtError as error:
            self._fault = error
            if not self._ears.is_detecting:
                raise
            return
        if more and not self._is_answering:
            messages = [self._system(self._config.instructions, self._toolbox), *messages_of(self._history)]
            await self._desk.read_ahead(self._ears, messages, self._ears.rows(), self._speaks)

    async def _end_turn(self, at_ms: float) -> None:
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=self._ears.at_ms(at_ms), item_id=self._coming_id)
        if self._fault is not None:
            fault, self._fault = self._fault, None
            self._ears.forget()
            raise fault
        await self._commit_audio(by_detector=True)
        vad = self._config.audio.input.turn_detection
        if vad is not None and vad.create_response:
            await self._begin_response(protocol.ResponseConfig())

    async def _commit(self, event: protocol.Commit) -> None:
        await self._commit_audio(by_detector=False)

    async def _commit_audio(self, by_detector: bool) -> None:
        rows, num_samples = await self._ears.finish(by_detector)
        item = user_audio(self._coming_id, rows, num_samples)
        self._coming_id, self._fault = new_id("item"), None
        before = self._history.insert(item)
        self._emit("input_audio_buffer.committed", previous_item_id=before, item_id=item.id)
        self._show(item, before)

    async def _clear(self, event: protocol.Clear) -> None:
        self._ears.clear()
        self._fault = None
        self._emit("input_audio_buffer.cleared")

    # items

    async def _create_item(self, event: protocol.ItemCreate) -> None:
        item = await self._read_item(event.item)
        if event.previous_item_id not in (None, "root"):
            self._history.find(event.previous_item_id or "")
        before = self._history.insert(item, event.previous_item_id)
        self._show(item, before)

    async def _read_item(self, given: Any) -> Item:
        if isinstance(given, protocol.FunctionCall):
            item = function_call(given.call_id, given.name, given.arguments, item_id=given.id)
        elif isinstance(given, protocol.FunctionCallOutput):
            if not self._history.has_call(given.call_id):
                reason = f"there is no function call {given.call_id[:64]!r} in the conversation"
                raise ClientError("invalid_value", reason, "item.call_id")
            item = function_call_output(given.call_id, given.output, given.id)
        else:
            content = [part.model_dump(exclude={"audio"}) for part in given.content]
            item = written_message(given.role, content, given.id)
            await self._hear_parts(item, given.content)
        await self._check_text(*messages_of([item]))
        return item

    async def _hear_parts(self, item: Item, content: Sequence[Any]) -> None:
        spoken = [part for part in content if isinstance(part, protocol.InputAudio)]
        if len(spoken) > 1:
            raise ClientError("invalid_value", "item.content: one audio part per message is supported", "item.content")
        if spoken:
            pcm = soxr.resample(pcm_of(spoken[0].audio).astype(np.float32) / 32768, RATE_HZ, SAMPLE_RATE_HZ)
            pcm = checked_pcm(pcm, SAMPLE_RATE_HZ, "item.content: the audio")
            item.rows, item.num_samples = await self._desk.embed(pcm), len(pcm)

    async def _retrieve(self, event: protocol.ItemRetrieve) -> None:
        self._emit("conversation.item.retrieved", item=self._history.find(event.item_id).shape)

    async def _delete(self, event: protocol.ItemDelete) -> None:
        item = self._history.find(event.item_id)
        if self._response is not None and self._is_answering and self._response.holds(item):
            raise ClientError("invalid_value", "the item is part of the answer that is on its way; cancel it first")
        self._history.remove([item])
        self._emit("conversation.item.deleted", item_id=item.id)

    async def _truncate(self, event: protocol.ItemTruncate) -> None:
        item = self._history.find(event.item_id)
        if item.spoken is None:
            raise ClientError("invalid_value", "only an answer's audio can be truncated", "item_id")
        if self._response is not None and self._response.holds(item):
            self._stop("client_cancelled")  # the rest was not heard
            await self._response.finished.wait()
        if event.audio_end_ms > item.spoken.sent_ms + 1:
            reason = f"audio_end_ms {event.audio_end_ms} is beyond the {item.spoken.sent_ms:.0f} ms of the item's audio"
            raise ClientError("invalid_value", reason, "audio_end_ms")
        item.text = item.spoken.words(event.audio_end_ms)
        # as heard: a second truncation can only shorten it
        item.spoken.sent_ms, item.spoken.complete = float(event.audio_end_ms), False
        item.shape["content"] = [{"type": "output_audio", "transcript": None}]
        self._emit("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=event.audio_end_ms)

    def _show(self, item: Item, before: str | None) -> None:
        for kind in ("added", "done"):
            self._emit(f"conversation.item.{kind}", previous_item_id=before, item=dict(item.shape))

    # answers

    @property
    def _is_answering(self) -> bool:
        return self._response is not None and not self._response.finished.is_set()

    @property
    def _speaks(self) -> bool:
        return self._config.output_modalities == ["audio"]

    async def _respond(self, event: protocol.ResponseCreate) -> None:
        await self._begin_response(event.response or protocol.ResponseConfig())

    async def _begin_response(self, asked: protocol.ResponseConfig) -> None:
        if self._response is not None and self._response.reason is not None:
            await self._response.finished.wait()
        if self._is_answering:
            assert self._response is not None
            reason = f"response {self._response.id} is on its way; cancel it, or wait for its end"
            raise ClientError("conversation_already_has_active_response", reason)
        config = self._config
        modality = (asked.output_modalities or config.output_modalities)[0]
        voice = asked.audio.output.voice or config.audio.output.voice
        self._check_output(modality, voice, "response.")
        toolbox = self._toolbox if asked.tools is None else self._read_tools(asked.tools, "response.tools")
        if (asked.tool_choice or config.tool_choice) == "none":
            toolbox = Toolbox([])
        instructions = config.instructions if asked.instructions is None else asked.instructions
        if asked.instructions is not None or asked.tools is not None:
            await self._check_system(instructions, toolbox)
        items = tuple(self._history) if asked.input is None else await self._read_input(asked.input)
        if not items or items[-1].role not in ("user", "tool"):
            reason = "the last item is not the user's, nor a function's output: there is nothing to answer"
            raise ClientError("nothing_to_answer", reason)
        tokens = asked.max_output_tokens or config.max_output_tokens
        max_steps = self._limits.max_steps if tokens == "inf" else min(int(tokens), self._limits.max_steps)
        question = Question(
            self._system(instructions, toolbox, modality == "audio"), items, modality == "audio", max_steps, voice,
            may_forget=config.truncation == "auto" and asked.input is None,
        )  # fmt: skip
        loop = asyncio.get_running_loop()

        def tell(told: TextDelta | AudioChunk) -> None:
            loop.call_soon_threadsafe(self._take, told)

        ask = Ask(question, self._num_answers + 1, tell)
        answer = self._desk.answer(self._ears, ask)  # or it is busy
        self._num_answers += 1
        kept_in = self._conversation_id if asked.conversation == "auto" else None
        shown_voice = voice or next(iter(self._desk.speakers), None)
        shape = Shape(modality == "audio", toolbox, tokens, shown_voice, asked.metadata, kept_in)
        self._response = Response(shape, self._desk, self._outbox, self._history, self._num_answers)
        self._ask = ask
        self._task = asyncio.create_task(self._follow(self._response, ask, answer))

    async def _read_input(self, given: Sequence[Any]) -> tuple[Item, ...]:
        items = []
        for item in given:
            is_known = isinstance(item, protocol.ItemReference)
            items.append(self._history.find(item.id) if is_known else await self._read_item(item))
        return tuple(items)

    def _take(self, told: TextDelta | AudioChunk) -> None:
        if self._response is not None:
            self._response.take(told)

    async def _follow(self, response: Response, ask: Ask, answer: asyncio.Future[Outcome]) -> None:
        try:
            outcome = await answer
        except FacrtError as error:
            response.fail("invalid_request", str(error))
        except Exception as error:  # a fault of ours ends this answer, not the server
            response.fail("internal_error", f"{type(error).__name__}: {error}")
        else:
            self._history.remove(ask.question.items[: outcome.num_forgotten])
            response.end(outcome)
            self._meters.answered(ask, outcome)
        self._meters.responses.labels(response.status).inc()

    async def _cancel(self, event: protocol.ResponseCancel) -> None:
        response = self._response
        if response is None or not self._is_answering or response.reason is not None:
            raise ClientError("response_cancel_not_active", "no response is on its way")
        if event.response_id not in (None, response.id):
            reason = f"response {event.response_id[:64] if event.response_id else ''!r} is not the one on its way"
            raise ClientError("response_cancel_not_active", reason, "response_id")
        self._stop("client_cancelled")

    def _stop(self, reason: str) -> None:
        if self._is_answering and self._response is not None and self._ask is not None:
            self._response.cancel(reason)
            self._ask.cancel()

    def _system(self, instructions: str | None, toolbox: Toolbox, speech: bool | None = None) -> Message:
        speaks = self._speaks if speech is None else speech
        told = self._desk.system_prompt(speaks) if instructions is None else instructions
        return Message("system", told + toolbox.describe())

    def _json(self) -> dict[str, Any]:
        shown = self._config.model_dump(mode="json")
        if shown["instructions"] is None:
            shown["instructions"] = self._desk.system_prompt(self._speaks)
        voice = self._config.audio.output.voice
        shown["audio"]["output"]["voice"] = voice or next(iter(self._desk.speakers), None)
        return {"object": "realtime.session", "id": self.id, "expires_at": self._expires_at, **shown}

    def _emit(self, kind: str, **fields: Any) -> None:
        self._outbox.put({"type": kind, **fields})
