"""The client's events of the Realtime API, as far as they are supported; everything else is refused with a reason."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import FacrtError

RATE_HZ = 24_000  # of all audio on the wire


class ClientError(FacrtError):
    """A client's event that is refused."""

    def __init__(self, code: str, message: str, param: str | None = None, event_id: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param, self.event_id = code, param, event_id


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Format(_Strict):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class ServerVad(_Strict):
    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, gt=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=10_000)
    silence_duration_ms: int = Field(default=500, ge=0, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class AudioIn(_Strict):
    format: Format = Format()
    turn_detection: ServerVad | None = ServerVad()
    transcription: None = None
    noise_reduction: None = None


class AudioOut(_Strict):
    format: Format = Format()
    voice: str | None = None  # None: the bundle's first speaker
    speed: float = Field(default=1.0, ge=1, le=1)


class SessionAudio(_Strict):
    input: AudioIn = AudioIn()
    output: AudioOut = AudioOut()


class FunctionTool(_Strict):
    type: Literal["function"]
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]


class SessionConfig(_Strict):
    """A session's settings, each with its default."""

    type: Literal["realtime"] = "realtime"
    model: str = ""
    instructions: str | None = None  # None: the checkpoint's own for its mode
    output_modalities: Modalities = ["audio"]
    audio: SessionAudio = SessionAudio()
    tools: list[FunctionTool] = []
    tool_choice: Literal["auto", "none"] = "auto"
    max_output_tokens: MaxTokens = "inf"
    truncation: Literal["auto", "disabled"] = "auto"
    parallel_tool_calls: Literal[True] | None = None
    include: None = None
    prompt: None = None
    reasoning: None = None
    tracing: None = None

    def updated(self, change: dict[str, Any]) -> SessionConfig:
        """With some settings changed, nested ones one by one.

        Raises:
            ClientError: a setting that does not exist or is not supported.
        """
        return validated(SessionConfig, _merged(self.model_dump(), change), "session")


class InputText(_Strict):
    type: Literal["input_text"]
    text: str


class InputAudio(_Strict):
    type: Literal["input_audio"]
    audio: str
    transcript: str | None = None


class OutputText(_Strict):
    type: Literal["output_text"]
    text: str


class _Item(_Strict):
    id: str | None = Field(default=None, min_length=1, max_length=64)
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class UserMessage(_Item):
    type: Literal["message"]
    role: Literal["user"]
    content: list[Annotated[InputText | InputAudio, Field(discriminator="type")]] = Field(min_length=1)


class SystemMessage(_Item):
    type: Literal["message"]
    role: Literal["system"]
    content: list[InputText] = Field(min_length=1)


class AssistantMessage(_Item):
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[OutputText] = Field(min_length=1)


class FunctionCall(_Item):
    type: Literal["function_call"]
    call_id: str = Field(min_length=1, max_length=64)
    name: str
    arguments: str


class FunctionCallOutput(_Item):
    type: Literal["function_call_output"]
    call_id: str
    output: str


class ItemReference(_Strict):
    type: Literal["item_reference"]
    id: str


Message = Annotated[UserMessage | SystemMessage | AssistantMessage, Field(discriminator="role")]
NewItem = Annotated[Message | FunctionCall | FunctionCallOutput, Field(discriminator="type")]
InputItem = Annotated[Message | FunctionCall | FunctionCallOutput | ItemReference, Field(discriminator="type")]


class ResponseVoice(_Strict):
    format: Format = Format()
    voice: str | None = None


class ResponseAudio(_Strict):
    output: ResponseVoice = ResponseVoice()


class ResponseConfig(_Strict):
    """Of one answer; None: as the session says."""

    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: ResponseAudio = ResponseAudio()
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    conversation: Literal["auto", "none"] = "auto"
    input: list[InputItem] | None = None
    parallel_tool_calls: Literal[True] | None = None
    prompt: None = None
    reasoning: None = None


class _Event(_Strict):
    type: str
    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(_Event):
    session: dict[str, Any]


class Append(_Event):
    audio: str


class Commit(_Event):
    pass


class Clear(_Event):
    pass


class ItemCreate(_Event):
    item: NewItem
    previous_item_id: str | None = None


class ItemRetrieve(_Event):
    item_id: str


class ItemDelete(_Event):
    item_id: str


class ItemTruncate(_Event):
    item_id: str
    content_index: Literal[0]
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(_Event):
    response: ResponseConfig | None = None


class ResponseCancel(_Event):
    response_id: str | None = None


EVENTS: dict[str, type[_Event]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": Append,
    "input_audio_buffer.commit": Commit,
    "input_audio_buffer.clear": Clear,
    "conversation.item.create": ItemCreate,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.delete": ItemDelete,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}


def parse(text: str, max_bytes: int) -> _Event:
    """One message of a client.

    Raises:
        ClientError: too long, no JSON object, an unknown type, a field that is missing, wrong or not supported.
    """
    if len(text) > max_bytes:
        raise ClientError("message_too_large", f"the message has {len(text)} bytes; at most {max_bytes} are taken")
    try:
        raw = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ClientError("invalid_json", f"the message is no JSON: {str(error)[:200]}") from None
    if not isinstance(raw, dict):
        raise ClientError("invalid_json", "the message is no JSON object")
    given = raw.get("event_id")
    event_id = given if isinstance(given, str) and len(given) <= 512 else None
    kind = raw.get("type")
    try:
        if not isinstance(kind, str) or kind not in EVENTS:
            found = f"{kind[:64]!r} is no supported type" if isinstance(kind, str) else "the event has no type"
            raise ClientError("unknown_event", f"{found}; supported: {', '.join(EVENTS)}", "type")
        if "\\u" in text:
            _refuse_surrogates(raw)
        return validated(EVENTS[kind], raw)
    except ClientError as error:
        error.event_id = event_id
        raise


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], raw: Any, where: str = "") -> Model:
    """The value as that model.

    Raises:
        ClientError: the first fault.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    except RecursionError:
        raise ClientError("invalid_value", "the event is nested too deeply") from None
    path = ".".join([*([where] if where else []), *(str(part)[:64] for part in fault["loc"])])
    codes = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
    reasons = {"extra_forbidden": "no such parameter", "missing": "is missing", "none_required": "is not supported"}
    reason = reasons.get(fault["type"], fault["msg"][:300])
    raise ClientError(codes.get(fault["type"], "invalid_value"), f"{path}: {reason}", path)


def pcm_of(audio: str) -> NDArray[np.int16]:
    """Base64 of 16-bit little-endian samples -> [N].

    Raises:
        ClientError: no base64, or half a sample.
    """
    try:
        data = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise ClientError("invalid_value", "audio is no base64", "audio") from None
    if len(data) % 2:
        reason = f"audio has {len(data)} bytes, so half a sample; 16-bit PCM is needed"
        raise ClientError("invalid_value", reason, "audio")
    return np.frombuffer(data, "<i2").astype(np.int16)


def base64_of(pcm: NDArray[np.float32]) -> str:
    """Samples [N] in [-1, 1] -> base64 of 16-bit little-endian ones."""
    return base64.b64encode((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()).decode("ascii")


def error_event(error: FacrtError) -> dict[str, Any]:
    """The event that refuses, but for its own `event_id`."""
    known = error if isinstance(error, ClientError) else ClientError("invalid_request", str(error))
    kind = "server_error" if known.code in SERVER_CODES else "invalid_request_error"
    detail = {"type": kind, "code": known.code, "message": str(known), "param": known.param, "event_id": known.event_id}
    return {"type": "error", "error": detail}


SERVER_CODES = ("busy", "too_many_sessions", "session_expired", "internal_error", "tool_call_failed")


def _merged(old: Any, change: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(change, dict)):
        return change
    return {**old, **{key: _merged(old.get(key), value) for key, value in change.items()}}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse_surrogates(raw: Any) -> None:
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise ClientError("invalid_json", "the message holds text that is no Unicode") from None
