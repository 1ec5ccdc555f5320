"""What waits to be sent to one client, counted in bytes."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from .items import new_id


@dataclass(frozen=True, slots=True)
class _Letter:
    text: str
    response_id: str | None  # of audio
    num_samples: int


class Outbox:
    """Filled by the session, emptied by the connection's sender; both in the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self.overflown = asyncio.Event()  # the client does not read
        self._letters: deque[_Letter] = deque()
        self._num_bytes, self._max_bytes = 0, max_bytes
        self._filled = asyncio.Event()

    def put(self, event: dict[str, Any], response_id: str | None = None, num_samples: int = 0) -> None:
        """Adds an event; where it carries audio, of which response and how much."""
        letter = _Letter(json.dumps({"event_id": new_id("event"), **event}), response_id, num_samples)
        if self._num_bytes + len(letter.text) > self._max_bytes:
            self.overflown.set()
            return
        self._letters.append(letter)
        self._num_bytes += len(letter.text)
        self._filled.set()

    async def get(self) -> str:
        """The next event's text, as soon as there is one."""
        while not self._letters:
            self._filled.clear()
            await self._filled.wait()
        letter = self._letters.popleft()
        self._num_bytes -= len(letter.text)
        return letter.text

    def drop_audio(self, response_id: str) -> int:
        """Forgets the response's audio that was not sent yet; returns how many samples."""
        dropped = [letter for letter in self._letters if letter.response_id == response_id]
        self._letters = deque(letter for letter in self._letters if letter.response_id != response_id)
        self._num_bytes -= sum(len(letter.text) for letter in dropped)
        return sum(letter.num_samples for letter in dropped)

    @property
    def is_empty(self) -> bool:
        return not self._letters
