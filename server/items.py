"""The items of a Realtime conversation, and the messages that the model reads for them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime.backend import Array
from ..runtime.prompt import Message
from ..runtime.tools import CLOSE, OPEN, CallReader, response_text
from .protocol import ClientError


def new_id(kind: str) -> str:
    """An identifier such as `item_5f0c...`."""
    return f"{kind}_{secrets.token_hex(10)}"


@dataclass(slots=True)
class Item:
    """One item: what the client sees of it, and what the model reads."""

    shape: dict[str, Any]  # as JSON, without audio
    text: str | None = None  # what the model reads
    rows: Array | None = None  # [P, H], what was heard of a user's audio
    num_samples: int = 0  # of that audio, 16 kHz
    spoken: Spoken | None = None  # of an assistant's answer

    @property
    def id(self) -> str:
        return str(self.shape["id"])

    @property
    def role(self) -> str:
        """Whose turn the item belongs to: system, user or assistant."""
        kinds = {"function_call": "assistant", "function_call_output": "tool"}
        return kinds.get(self.shape["type"]) or str(self.shape["role"])

    def message(self) -> Message:
        if self.rows is None:
            return Message("system" if self.role == "system" else "user", self.text)
        # the model reads the rows; of the audio only the length counts, so that no waveform is kept
        return Message("user", self.text, np.broadcast_to(np.float32(0), self.num_samples), rows=self.rows)


@dataclass(slots=True)
class Spoken:
    """What an answer said when: as much as its truncation needs."""

    decode: Callable[[Sequence[int]], str]
    text_ids: list[int] = field(default_factory=list)
    groups: list[tuple[float, int]] = field(default_factory=list)  # a group's beginning in ms, text ids so far
    sent_ms: float = 0.0  # handed to the client
    complete: bool = False

    def words(self, played_ms: float) -> str:
        """The words beside the speech that began to be played, calls left out; all where all was played."""
        num_ids = max((num for begin_ms, num in self.groups if begin_ms < played_ms), default=0)
        if self.complete and played_ms >= self.sent_ms:
            num_ids = len(self.text_ids)
        return words_of(self.decode(self.text_ids[:num_ids]))


def words_of(text: str) -> str:
    """An answer's text without its calls."""
    reader = CallReader()
    parts = [words for is_call, words in reader.feed(text) if not is_call]
    inside, rest = reader.finish()
    return "".join(parts) + ("" if inside else rest)


def user_audio(item_id: str, rows: Array, num_samples: int) -> Item:
    """A spoken user turn, heard already: rows [P, H]."""
    content = [{"type": "input_audio", "transcript": None}]
    return Item(_message(item_id, "user", "completed", content), rows=rows, num_samples=num_samples)


def assistant_message(spoken: Spoken) -> Item:
    """An answer that begins."""
    return Item(_message(new_id("item"), "assistant", "in_progress", []), text="", spoken=spoken)


def function_call(call_id: str, name: str, arguments: str, raw: str | None = None, item_id: str | None = None) -> Item:
    """A call; `raw` is what the model wrote between its marks, where it was the model."""
    raw = raw or "\n" + json.dumps({"name": name, "arguments": _json_or_text(arguments)}, ensure_ascii=False) + "\n"
    shape = {
        "id": item_id or new_id("item"), "object": "realtime.item", "type": "function_call", "status": "completed",
        "call_id": call_id, "name": name, "arguments": arguments,
    }  # fmt: skip
    return Item(shape, text=f"{OPEN}{raw}{CLOSE}")


def function_call_output(call_id: str, output: str, item_id: str | None = None) -> Item:
    """The result of a call."""
    shape = {
        "id": item_id or new_id("item"), "object": "realtime.item", "type": "function_call_output",
        "status": "completed", "call_id": call_id, "output": output,
    }  # fmt: skip
    return Item(shape, text=response_text([_json_or_text(output)]))


def written_message(role: str, content: list[dict[str, Any]], item_id: str | None = None) -> Item:
    """A message in words; audio parts are the caller's."""
    text = "\n".join(part["text"] for part in content if "text" in part)
    has_words = any("text" in part for part in content)
    return Item(_message(item_id or new_id("item"), role, "completed", content), text=text if has_words else None)


def _message(item_id: str, role: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"id": item_id, "object": "realtime.item", "type": "message"}
    return {**head, "status": status, "role": role, "content": content}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def messages_of(items: Iterable[Item]) -> list[Message]:
    """The messages that the model reads: neighbours of an answer are one, and so are results of calls."""
    messages: list[Message] = []
    before = ""
    for item in items:
        if item.role == before == "assistant":
            messages[-1] = Message("assistant", (messages[-1].text or "") + (item.text or ""))
        elif item.role == before == "tool":
            messages[-1] = Message("user", f"{messages[-1].text}\n{item.text}")
        elif item.role == "assistant":
            messages.append(Message("assistant", item.text or ""))
        else:
            messages.append(item.message())
        before = item.role
    return messages


def oldest_turn(items: Sequence[Item]) -> int:
    """How many items the oldest turn has, a user's and what follows it; 0 where there is but one turn."""
    users = [i for i, item in enumerate(items) if item.role == "user"]
    return users[1] if len(users) > 1 else 0


class History:
    """The items of one conversation, in order."""

    def __init__(self, max_items: int) -> None:
        self._items: list[Item] = []
        self._max_items = max_items

    def __iter__(self) -> Iterator[Item]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def find(self, item_id: str) -> Item:
        """
        Raises:
            ClientError: there is no such item.
        """
        return self._items[self._place(item_id)]

    def append(self, item: Item) -> str | None:
        """Puts the server's own item at the end; returns the id of the one before it."""
        self._items.append(item)
        return self.before(item)

    def before(self, item: Item) -> str | None:
        """The id of the item before one; None where that is the first, or gone."""
        at = next((i for i, mine in enumerate(self._items) if mine is item), 0)
        return self._items[at - 1].id if at else None

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """Puts a client's item behind another one, at the beginning (`root`) or at the end (None).

        Returns:
            The id of the item before it.

        Raises:
            ClientError: no such item, the id is taken, or the conversation is full.
        """
        if len(self._items) >= self._max_items:
            reason = f"the conversation has {self._max_items} items, as many as are kept; delete some"
            raise ClientError("too_many_items", reason)
        if any(other.id == item.id for other in self._items):
            raise ClientError("invalid_value", f"item {item.id!r} is there already", "item.id")
        at = len(self._items) if after is None else 0 if after == "root" else self._place(after) + 1
        self._items.insert(at, item)
        return self._items[at - 1].id if at else None

    def remove(self, items: Iterable[Item]) -> None:
        gone = {id(item) for item in items}
        self._items = [item for item in self._items if id(item) not in gone]

    def has_call(self, call_id: str) -> bool:
        return any(item.shape["type"] == "function_call" and item.shape["call_id"] == call_id for item in self._items)

    def _place(self, item_id: str) -> int:
        for i, item in enumerate(self._items):
            if item.id == item_id:
                return i
        raise ClientError("item_not_found", f"there is no item {item_id[:64]!r} in the conversation", "item_id")
