"""A conversation of several turns: user audio or text, assistant text (SEMANTICS.md 5, multi-turn)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RequestError
from ..model.settings import SPEECH_SYSTEM_PROMPT, TEXT_SYSTEM_PROMPT
from .prompt import Message

if TYPE_CHECKING:
    from .engine import Engine, Reply


class Conversation:
    """The history of one partner. All user audio is encoded again at each turn, as upstream does."""

    def __init__(self, engine: Engine, system: str | None = None, speech: bool = True) -> None:
        default = SPEECH_SYSTEM_PROMPT if speech else TEXT_SYSTEM_PROMPT
        self.messages = [Message("system", default if system is None else system)]
        self._engine = engine
        self._speech = speech

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.messages.clear()

    def respond(
        self, audio: str | Path | np.ndarray | None = None, *, text: str | None = None, **options: Any
    ) -> Reply:
        """Answers one user turn and remembers both sides of it; a turn that fails is not remembered.

        Args:
            audio: a file, or 16 kHz mono samples [N].
            text: beside the audio, or instead of it.
            options: as in `Engine.answer`.

        Raises:
            AudioError, RequestError: the input cannot be used.
        """
        if audio is None and text is None:
            raise RequestError("a turn needs audio or text")
        question = Message("user", text, None if audio is None else self._engine.read(audio))
        reply = self._engine.answer([*self.messages, question], speech=self._speech, **options)
        self.messages += [question, Message("assistant", reply.text)]
        return reply
