"""One response: what the runtime says while it answers, as events of the Realtime API."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from ..runtime.events import AudioChunk, TextDelta, ToolCall, ToolCallFailed
from ..runtime.tools import CLOSE, OPEN, CallReader, Toolbox
from .desk import Desk, Outcome
from .items import History, Item, Spoken, assistant_message, function_call, new_id
from .outbox import Outbox
from .protocol import RATE_HZ, ClientError, base64_of, error_event


@dataclass(frozen=True, slots=True)
class Shape:
    """What a client asked for."""

    speech: bool
    toolbox: Toolbox
    max_output_tokens: int | str
    voice: str | None
    metadata: dict[str, str] | None
    conversation_id: str | None  # None: the answer is not kept


class Response:
    """From `response.created` to `response.done`; for the event loop's thread."""

    def __init__(self, shape: Shape, desk: Desk, outbox: Outbox, history: History, number: int) -> None:
        self.id = new_id("resp")
        self.finished = asyncio.Event()
        self.reason: str | None = None  # why it is cancelled
        self.status = "in_progress"
        self._shape, self._desk, self._outbox, self._history = shape, desk, outbox, history
        self._number = number
        self._reader = CallReader()
        self._resampler: soxr.ResampleStream | None = None
        if desk.sample_rate not in (0, RATE_HZ):
            self._resampler = soxr.ResampleStream(desk.sample_rate, RATE_HZ, 1, dtype="float32")
        self._output: list[Item] = []
        self._message: Item | None = None
        self._words = ""
        self._kept = ""  # words, and calls that failed, as the model reads them later
        self._num_samples = 0  # 24 kHz, handed to the client
        self._emit("response.created", response=self._json("in_progress"))

    def holds(self, item: Item) -> bool:
        """Whether the item is part of this answer."""
        return any(item is mine for mine in self._output)

    def cancel(self, reason: str) -> None:
        """Nothing more is said: audio that was not sent is dropped."""
        if self.reason is None:
            self.reason = reason
            self._num_samples -= self._outbox.drop_audio(self.id)

    def take(self, event: TextDelta | AudioChunk) -> None:
        """More of the answer."""
        if self.reason is not None:
            return
        if isinstance(event, AudioChunk):
            pcm = event.pcm if self._resampler is None else self._resampler.resample_chunk(event.pcm)
            self._say(pcm)
        else:
            for is_call, text in self._reader.feed(event.text):
                self._call(text) if is_call else self._write(text)

    def end(self, outcome: Outcome) -> None:
        """The answer is over, or was interrupted."""
        status, details = "completed", None
        if self.reason is None and self._resampler is not None:
            self._say(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if self.reason is not None:
            status, details = "cancelled", {"type": "cancelled", "reason": self.reason}
        elif outcome.limited:
            status, details = "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
        if self.reason is None:
            unclosed, rest = self._reader.finish()
            if unclosed:
                self._failed_call(ToolCallFailed("the call is never closed", rest, self._number))
            elif rest:
                self._write(rest)
        if self._message is not None:
            self._close_message(self._message, outcome, status)
        self._done(status, details, _usage(outcome))

    def fail(self, code: str, message: str) -> None:
        """The question cannot be answered."""
        kind = "server_error" if code == "internal_error" else "invalid_request_error"
        details = {"type": "failed", "error": {"type": kind, "code": code, "message": message}}
        if self._message is not None:
            self._close_message(self._message, Outcome(), "incomplete")
        self._done("failed", details, None)

    def _done(self, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None) -> None:
        self._emit("response.done", response={**self._json(status), "status_details": details, "usage": usage})
        self.status = status
        self.finished.set()

    def _write(self, words: str) -> None:
        item = self._open_message()
        self._words += words
        self._kept += words
        kind = "output_audio_transcript" if self._shape.speech else "output_text"
        self._emit(f"response.{kind}.delta", **self._place(item), delta=words)

    def _say(self, pcm: np.ndarray) -> None:
        if not len(pcm):
            return
        item = self._open_message()
        self._num_samples += len(pcm)
        event = {"type": "response.output_audio.delta", "response_id": self.id, **self._place(item)}
        self._outbox.put({**event, "delta": base64_of(pcm)}, self.id, len(pcm))

    def _call(self, raw: str) -> None:
        call = self._shape.toolbox.read(raw, new_id("call"), self._number)
        if isinstance(call, ToolCallFailed):
            self._failed_call(call)
            return
        assert isinstance(call, ToolCall)
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        item = function_call(call.call_id, call.name, arguments, raw)
        full = dict(item.shape)
        item.shape |= {"status": "in_progress", "arguments": ""}
        self._add(item)
        place = {**self._place(item, part=False), "call_id": call.call_id}
        self._emit("response.function_call_arguments.delta", **place, delta=arguments)
        self._emit("response.function_call_arguments.done", **place, name=call.name, arguments=arguments)
        item.shape = full
        self._close(item)

    def _failed_call(self, failed: ToolCallFailed) -> None:
        self._kept += f"{OPEN}{failed.text}{CLOSE}"
        self._outbox.put(error_event(ClientError("tool_call_failed", f"the model's call fails: {failed.reason}")))

    def _open_message(self) -> Item:
        if self._message is None:
            self._message = assistant_message(Spoken(self._desk.decode))
            self._add(self._message)
            kind = {"type": "audio", "transcript": ""} if self._shape.speech else {"type": "text", "text": ""}
            self._emit("response.content_part.added", **self._place(self._message), part=kind)
        return self._message

    def _close_message(self, item: Item, outcome: Outcome, status: str) -> None:
        place, words = self._place(item), self._words
        if self._shape.speech:
            self._emit("response.output_audio.done", **place)
            self._emit("response.output_audio_transcript.done", **place, transcript=words)
            part, content = {"type": "audio", "transcript": words}, {"type": "output_audio", "transcript": words}
        else:
            self._emit("response.output_text.done", **place, text=words)
            part, content = {"type": "text", "text": words}, {"type": "output_text", "text": words}
        self._emit("response.content_part.done", **place, part=part)
        is_whole = status == "completed"
        item.shape |= {"status": "completed" if is_whole else "incomplete", "content": [content]}
        item.text, spoken = self._kept, item.spoken
        assert spoken is not None
        spoken.text_ids, spoken.groups = outcome.text_ids, outcome.groups
        spoken.sent_ms, spoken.complete = self._num_samples / RATE_HZ * 1e3, outcome.complete and self.reason is None
        if self._shape.speech and not spoken.complete:  # what was not heard was not said
            item.text = spoken.words(spoken.sent_ms)
        self._close(item)

    def _add(self, item: Item) -> None:
        self._output.append(item)
        self._emit("response.output_item.added", output_index=len(self._output) - 1, item=dict(item.shape))
        if self._shape.conversation_id is not None:
            before = self._history.append(item)
            self._outbox.put({"type": "conversation.item.added", "previous_item_id": before, "item": dict(item.shape)})

    def _close(self, item: Item) -> None:
        index = self._place(item)["output_index"]
        self._emit("response.output_item.done", output_index=index, item=dict(item.shape))
        if self._shape.conversation_id is not None:
            before = self._history.before(item)
            self._outbox.put({"type": "conversation.item.done", "previous_item_id": before, "item": dict(item.shape)})

    def _place(self, item: Item, part: bool = True) -> dict[str, Any]:
        index = next(i for i, mine in enumerate(self._output) if mine is item)
        return {"item_id": item.id, "output_index": index, **({"content_index": 0} if part else {})}

    def _emit(self, kind: str, **fields: Any) -> None:
        about = {} if "response" in fields else {"response_id": self.id}
        self._outbox.put({"type": kind, **about, **fields})

    def _json(self, status: str) -> dict[str, Any]:
        shape = self._shape
        voice = {"format": {"type": "audio/pcm", "rate": RATE_HZ}, "voice": shape.voice}
        return {
            "object": "realtime.response", "id": self.id, "status": status, "status_details": None,
            "output": [dict(item.shape) for item in self._output], "conversation_id": shape.conversation_id,
            "output_modalities": ["audio" if shape.speech else "text"], "max_output_tokens": shape.max_output_tokens,
            "audio": {"output": voice}, "metadata": shape.metadata, "usage": None,
        }  # fmt: skip


def _usage(outcome: Outcome) -> dict[str, Any]:
    num_text = len(outcome.text_ids)
    heard = {"audio_tokens": outcome.num_heard, "text_tokens": outcome.num_prompt - outcome.num_heard}
    said = {"audio_tokens": outcome.num_speech, "text_tokens": num_text}
    num_out = num_text + outcome.num_speech
    return {
        "total_tokens": outcome.num_prompt + num_out, "input_tokens": outcome.num_prompt, "output_tokens": num_out,
        "input_token_details": heard, "output_token_details": said,
    }  # fmt: skip
