"""What leaves a live conversation: everything is one of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .backend import Array

EndReason = Literal["done", "interrupted"]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The user began to speak."""

    at_ms: float  # into all audio that was fed


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The user's turn is over."""

    at_ms: float  # into all audio that was fed
    duration_ms: float  # of the turn's audio, pre-roll included


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's words."""

    text: str
    turn: int  # counts answers, from 1


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """More of the answer's voice."""

    pcm: Array  # [N] float32 in [-1, 1]
    sample_rate: int  # Hz
    start_ms: float  # of the chunk in the answer
    turn: int

    @property
    def duration_ms(self) -> float:
        return len(self.pcm) / self.sample_rate * 1e3


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks the host to run a function; its result goes back with `Conversation.tool_result`."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    turn: int


@dataclass(frozen=True, slots=True)
class ToolCallFailed:
    """A call that cannot be run, and why: no JSON, an unknown tool, arguments that break its schema."""

    reason: str
    text: str  # what the model wrote
    turn: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The last event of an answer."""

    text: str  # what the history keeps
    text_ids: list[int]  # as generated (SEMANTICS.md 5)
    speech_ids: list[int]  # likewise
    reason: EndReason
    turn: int
    timings_ms: dict[str, float] = field(default_factory=dict)  # phase of `metrics.PHASES` -> ms since the user's end


@dataclass(frozen=True, slots=True)
class Failed:
    """A turn that could not be answered; the conversation goes on."""

    reason: str
    turn: int


Event = SpeechStarted | SpeechStopped | TextDelta | AudioChunk | ToolCall | ToolCallFailed | TurnEnded | Failed
