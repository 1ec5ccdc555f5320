"""The dataset format: a file of JSON lines, one conversation each, and the WAV files that they name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import soundfile

from ..errors import DatasetError, FacrtError
from ..model.geometry import MAX_AUDIO_SECONDS

LINES = "data.jsonl"
MIN_AUDIO_SECONDS = 0.04  # one speech token
ROLES = ("system", "user", "assistant")
CONVERSATION_KEYS = ("id", "messages", "intent")
MESSAGE_KEYS = {"system": ("role", "text"), "user": ("role", "text", "audio"),
                "assistant": ("role", "text", "audio", "tool_call")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpokenMessage:
    """One turn; a user's has text, audio or both, an assistant's always text."""

    role: Literal["system", "user", "assistant"]
    text: str | None = None
    audio: Path | None = None  # mono WAV of any rate
    tool_call: Mapping[str, Any] | None = None  # {"name": ..., "arguments": {...}}


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system message, then user and assistant in turn; the assistant has the last word."""

    id: str
    messages: tuple[SpokenMessage, ...]
    intent: str | None = None  # for counting only


def read_dataset(path: Path | str) -> Iterator[Conversation]:
    """Reads a JSON lines file, or `data.jsonl` of a folder, line by line; of audio files only the headers are read.

    Raises:
        DatasetError: the file cannot be read or is empty, or a line breaks the format: file, line and field are named.
    """
    path = Path(path)
    path = path / LINES if path.is_dir() else path
    seen: dict[str, int] = {}
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                conversation = _Line(path, number).conversation(line)
                if conversation.id in seen:
                    first = seen[conversation.id]
                    raise DatasetError(f"{path}, line {number}, id: {conversation.id!r} is also that of line {first}")
                seen[conversation.id] = number
                yield conversation
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: a JSON lines file, or a folder with {LINES}, is needed") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({os.strerror(error.errno or 0)})") from None
    if not number:
        raise DatasetError(f"{path} is empty: one conversation per line is needed")


def write_lines(path: Path, conversations: Iterable[Conversation]) -> None:
    """Writes the JSON lines by rename; audio paths inside the file's folder become relative to it.

    Raises:
        FacrtError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for conversation in conversations:
                file.write(json.dumps(_as_json(conversation, path.parent), ensure_ascii=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise FacrtError(f"{path} cannot be written ({os.strerror(error.errno or 0)}); choose another --out") from None


def _as_json(conversation: Conversation, folder: Path) -> dict[str, Any]:
    messages = []
    for message in conversation.messages:
        audio = message.audio.relative_to(folder).as_posix() if message.audio is not None else None
        row = {"role": message.role, "text": message.text, "audio": audio, "tool_call": message.tool_call}
        messages.append({key: value for key, value in row.items() if value is not None})
    intent = {} if conversation.intent is None else {"intent": conversation.intent}
    return {"id": conversation.id, **intent, "messages": messages}


@dataclass(frozen=True, slots=True)
class _Line:
    """Checks one line; every fault names file, line and field."""

    path: Path
    number: int

    def fault(self, field: str, reason: str) -> DatasetError:
        return DatasetError(f"{self.path}, line {self.number}{f', {field}' if field else ''}: {reason}")

    def conversation(self, line: bytes) -> Conversation:
        if not line.strip():
            raise self.fault("", "the line is empty; remove it")
        try:
            raw = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self.fault("", f"no JSON in UTF-8 ({error})") from None
        row = self._object(raw, "", CONVERSATION_KEYS)
        name = self._text(row, "id", "id")
        intent = self._text(row, "intent", "intent") if "intent" in row else None
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise self.fault("messages", "a list of messages is needed")
        found = tuple(self._message(item, f"messages[{i}]") for i, item in enumerate(messages))
        self._check_order(found)
        return Conversation(name, found, intent)

    def _check_order(self, messages: tuple[SpokenMessage, ...]) -> None:
        start = int(messages[0].role == "system")
        for i, message in enumerate(messages[start:]):
            wanted = ("user", "assistant")[i % 2]
            if message.role != wanted:
                field = f"messages[{start + i}].role"
                raise self.fault(field, f"{message.role!r} where {wanted!r} is due; user and assistant take turns")
        if messages[-1].role != "assistant":
            raise self.fault("messages", f"the last message is the {messages[-1].role}'s; the assistant's is needed")

    def _message(self, raw: Any, field: str) -> SpokenMessage:
        role = raw.get("role") if isinstance(raw, dict) else None
        if isinstance(raw, dict) and role not in ROLES:
            raise self.fault(f"{field}.role", f"{role!r} is none of {', '.join(ROLES)}")
        row = self._object(raw, field, MESSAGE_KEYS.get(role or "", ()))
        text = self._text(row, "text", f"{field}.text") if "text" in row or role != "user" else None
        audio = self._audio(row["audio"], f"{field}.audio") if "audio" in row else None
        if text is None and audio is None:
            raise self.fault(field, "neither text nor audio; a user's message needs one of them")
        call = self._tool_call(row["tool_call"], f"{field}.tool_call") if "tool_call" in row else None
        return SpokenMessage(role, text, audio, call)  # type: ignore[arg-type]

    def _tool_call(self, raw: Any, field: str) -> Mapping[str, Any]:
        call = self._object(raw, field, ("name", "arguments"))
        self._text(call, "name", f"{field}.name")
        if not isinstance(call.get("arguments"), dict):
            raise self.fault(f"{field}.arguments", "a JSON object is needed, {} if there are none")
        return call

    def _object(self, raw: Any, field: str, keys: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self.fault(field, f"{json.dumps(raw)[:40]} is no JSON object")
        unknown = sorted(set(raw) - set(keys))
        if unknown:
            raise self.fault(f"{field}.{unknown[0]}".lstrip("."), f"unknown; allowed here: {', '.join(keys)}")
        return raw

    def _text(self, row: dict[str, Any], key: str, field: str) -> str:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            found = "missing" if key not in row else f"{json.dumps(value)[:40]}"
            raise self.fault(field, f"{found}; a text that is not empty is needed")
        return value

    def _audio(self, raw: Any, field: str) -> Path:
        if not isinstance(raw, str) or not raw:
            raise self.fault(field, f"{json.dumps(raw)[:40]} is no path")
        relative = PurePosixPath(raw)
        if relative.is_absolute() or ".." in relative.parts:
            raise self.fault(field, f"{raw} leaves the dataset's folder; paths are relative to the JSON lines file")
        path = self.path.parent / relative
        if not path.is_file():
            raise self.fault(field, f"{path} is missing")
        try:
            info = soundfile.info(path)
        except (soundfile.SoundFileError, OSError) as error:
            raise self.fault(field, f"{path} is no readable WAV file ({str(error).strip()})") from None
        if info.format not in ("WAV", "WAVEX"):
            raise self.fault(field, f"{path} is {info.format}; WAV is needed")
        if info.channels != 1:
            raise self.fault(field, f"{path} has {info.channels} channels; mono is needed")
        seconds = info.frames / info.samplerate
        if not MIN_AUDIO_SECONDS <= seconds <= MAX_AUDIO_SECONDS:
            limits = f"{MIN_AUDIO_SECONDS} to {MAX_AUDIO_SECONDS} s are allowed"
            raise self.fault(field, f"{path} lasts {seconds:.2f} s; {limits}")
        return path


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
