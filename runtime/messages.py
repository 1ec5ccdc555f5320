"""`--messages FILE.json` -> messages: paths are relative to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .audio import read_audio
from .prompt import Message

ROLES = ("system", "user", "assistant")
KEYS = {"role", "text", "audio", "speech_ids"}


def read_messages(path: Path) -> list[Message]:
    """Reads a JSON list of {"role", "text"?, "audio"?, "speech_ids"?}; the last message is the user's.

    `audio` is a file, for a user's turn; `speech_ids`, 25 Hz ids, stand for an audio that was never a waveform.

    Raises:
        RequestError: no such file, no JSON, or a message that cannot be one.
        AudioError: an audio file cannot be used.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{path} is missing; --messages names a JSON file") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is no readable JSON: {error}") from None
    if not isinstance(raw, list) or not raw:
        raise RequestError(f"{path} holds no list of messages")
    messages = [_message(item, f"{path}, message {i}", path.parent) for i, item in enumerate(raw)]
    if messages[-1].role != "user":
        raise RequestError(f"{path}: the last message is {messages[-1].role}'s; a user's is needed")
    return messages


def _message(item: Any, where: str, folder: Path) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise RequestError(f"{where} has no role among {', '.join(ROLES)}")
    if set(item) - KEYS:
        raise RequestError(
            f"{where} has unknown keys {', '.join(sorted(set(item) - KEYS))}; allowed: {', '.join(sorted(KEYS))}"
        )
    text, audio, ids = item.get("text"), item.get("audio"), item.get("speech_ids")
    if text is not None and not isinstance(text, str):
        raise RequestError(f"{where}: text is no string")
    if audio is not None and (not isinstance(audio, str) or item["role"] != "user"):
        raise RequestError(f"{where}: audio is a file of a user's turn; an assistant's turn takes text")
    if ids is not None and not (isinstance(ids, list) and ids and all(isinstance(i, int) for i in ids)):
        raise RequestError(f"{where}: speech_ids is no list of ids")
    if text is None and audio is None and ids is None:
        raise RequestError(f"{where} holds neither text nor audio")
    return Message(
        item["role"],
        text,
        None if audio is None else read_audio(folder / audio),
        None if ids is None else tuple(ids),
    )
