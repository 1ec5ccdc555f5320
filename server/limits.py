"""What the server takes from its clients at most."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError
from ..model.geometry import MAX_AUDIO_SECONDS

HARD_MESSAGE_FACTOR = 4  # a message of so many times the limit ends the connection: it is not even received


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one server."""

    max_sessions: int = 8
    max_waiting: int = 4  # answers that wait for the engine, beside the one that it makes
    max_session_seconds: float = 3600.0
    max_turn_seconds: float = MAX_AUDIO_SECONDS - 5.0  # audio of one user turn
    max_message_bytes: int = 4 << 20  # of one WebSocket message; as base64, 65 s of audio
    max_unread_bytes: int = 16 << 20  # events that a slow client may leave unread
    max_items: int = 1000  # of one conversation
    max_text_chars: int = 100_000  # of one item, of the instructions, of all tools
    max_steps: int = 512  # backbone steps of an answer (5 a second)

    def __post_init__(self) -> None:
        faults = []
        sizes = ("max_sessions", "max_message_bytes", "max_unread_bytes", "max_items", "max_text_chars", "max_steps")
        for name in sizes:
            if getattr(self, name) < 1:
                faults.append(f"{name} {getattr(self, name)} is not at least 1")
        if self.max_waiting < 0:
            faults.append(f"max_waiting {self.max_waiting} is not at least 0")
        if not self.max_session_seconds > 0:
            faults.append(f"max_session_seconds {self.max_session_seconds} is not above 0")
        if not 1 <= self.max_turn_seconds <= MAX_AUDIO_SECONDS - 1:
            faults.append(f"max_turn_seconds {self.max_turn_seconds} is not in 1 .. {MAX_AUDIO_SECONDS - 1}")
        if faults:
            raise RequestError("; ".join(faults))
