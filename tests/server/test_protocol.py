"""Whatever a client sends is answered with events: malformed messages, any order of good ones."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from facrt.errors import RequestError
from facrt.server.desk import Desk
from facrt.server.items import History, Item, Spoken, function_call, function_call_output, messages_of, written_message
from facrt.server.limits import Limits
from facrt.server.meters import Meters
from facrt.server.outbox import Outbox
from facrt.server.protocol import EVENTS, ClientError, SessionConfig, parse, pcm_of
from facrt.server.session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).parent))
from serving import FakeEngine, hum

SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TEXT_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}
OUTPUT_ITEM = {"type": "function_call_output", "call_id": "c", "output": ""}
AUDIO = base64.b64encode(hum(0.4, 0.8).tobytes()).decode()


class Talk:
    """A session whose client reads at once; for one event loop."""

    def __init__(self, engine: FakeEngine | None = None, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.desk = Desk(engine or FakeEngine(), limits.max_waiting)
        self.outbox = Outbox(limits.max_unread_bytes)
        self.session = Session(self.desk, self.outbox, limits, Meters(), "nano", "energy")

    async def send(self, message: Any) -> list[dict[str, Any]]:
        """What comes back for one message, an answer to its end."""
        await self.session.receive(message if isinstance(message, str) else json.dumps(message))
        if self.session._task is not None:
            await asyncio.wait([self.session._task])
        events = []
        while not self.outbox.is_empty:
            events.append(json.loads(await self.outbox.get()))
        for event in events:
            SERVER_EVENT.validate_python(event)  # as the openai package declares it
        return events

    async def close(self) -> None:
        await self.session.close()
        self.desk.close()


def talked(*messages: Any, **options: Any) -> list[list[dict[str, Any]]]:
    """What came back for each message."""

    async def run() -> list[list[dict[str, Any]]]:
        talk = Talk(**options)
        try:
            return [await talk.send(message) for message in messages]
        finally:
            await talk.close()

    return asyncio.run(run())


def refusal(*messages: Any, **options: Any) -> dict[str, Any]:
    """The error event that the last message alone brought."""
    (event,) = talked({"type": "input_audio_buffer.clear"}, *messages, **options)[-1]
    assert event["type"] == "error"
    return event["error"]


CODES = (
    "invalid_json", "unknown_event", "unknown_parameter", "missing_required_parameter", "invalid_value",
    "message_too_large",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=12), children, max_size=3),
    max_leaves=12,
)
FIELDS = (
    "type", "event_id", "session", "audio", "item", "item_id", "content_index", "audio_end_ms", "response",
    "previous_item_id", "response_id",
)  # fmt: skip
EVENT_LIKE = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(sorted(EVENTS)),
    st.dictionaries(st.sampled_from(FIELDS[1:]), JSON, max_size=4),
)
GOOD = st.sampled_from(
    [
        {"type": "conversation.item.create", "item": TEXT_ITEM},
        {"type": "conversation.item.create", "item": {**TEXT_ITEM, "id": "mine"}, "previous_item_id": "root"},
        {"type": "conversation.item.delete", "item_id": "mine"},
        {"type": "conversation.item.retrieve", "item_id": "mine"},
        {"type": "conversation.item.truncate", "item_id": "mine", "content_index": 0, "audio_end_ms": 10},
        {"type": "input_audio_buffer.append", "audio": AUDIO},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "response.create"},
        {"type": "response.create", "response": {"conversation": "none", "input": [TEXT_ITEM]}},
        {"type": "response.cancel"},
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}},
        {"type": "session.update", "session": {"output_modalities": ["text"]}},
    ]
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(), JSON.map(json.dumps), EVENT_LIKE.map(json.dumps)))
def test_parsing_gives_an_event_or_a_reason(text: str) -> None:
    try:
        outcome = parse(text, 1000).type
    except ClientError as error:
        outcome = error.code
    assert outcome in EVENTS or outcome in CODES


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(GOOD, EVENT_LIKE, JSON), max_size=8))
def test_any_sequence_leaves_the_session_alive(messages: list[Any]) -> None:
    probe = {"type": "session.update", "event_id": "probe", "session": {"instructions": "Sing."}}
    *_, last = talked(*messages, probe)
    assert last[-1]["type"] == "session.updated"
    assert last[-1]["session"]["instructions"] == "Sing."


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("{", "invalid_json", "no JSON"),
        ("[" * 100_000, "invalid_json", "no JSON"),
        ("3", "invalid_json", "no JSON object"),
        ('{"type": "session.update", "session": {"x": NaN}}', "invalid_json", "NaN"),
        ('{"type": "conversation.item.delete", "item_id": "\\ud800"}', "invalid_json", "no Unicode"),
        ({}, "unknown_event", "has no type"),
        ({"type": "output_audio_buffer.clear"}, "unknown_event", "supported: session.update"),
        ({"type": "conversation.item.delete"}, "missing_required_parameter", "item_id: is missing"),
        ({"type": "response.cancel", "x": 1}, "unknown_parameter", "x: no such parameter"),
        ({"type": "response.cancel"}, "response_cancel_not_active", "no response"),
        ({"type": "response.create"}, "nothing_to_answer", "nothing to answer"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value", "no base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "half a sample"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", "holds 0 ms"),
        ({"type": "conversation.item.delete", "item_id": "no"}, "item_not_found", "no item 'no'"),
        ({"type": "conversation.item.create", "item": TEXT_ITEM, "previous_item_id": "no"}, "item_not_found", "'no'"),
        (
            {"type": "conversation.item.create", "item": OUTPUT_ITEM},
            "invalid_value", "no function call 'c'",
        ),
        ({"type": "conversation.item.create", "item": {**TEXT_ITEM, "content": []}}, "invalid_value", "at least 1"),
    ],
)  # fmt: skip
def test_refusals(message: Any, code: str, reason: str) -> None:
    error = refusal(message)
    assert error["code"] == code
    assert reason in error["message"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"output_modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"audio": {"input": {"format": {"type": "audio/pcmu"}}}}, "session.audio.input.format.type"),
        ({"audio": {"input": {"format": {"rate": 16000}}}}, "session.audio.input.format.rate"),
        ({"audio": {"input": {"transcription": {"model": "any"}}}}, "transcription: is not supported"),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}, "'server_vad'"),
        ({"audio": {"output": {"voice": "alloy"}}}, "voice: 'alloy' is unknown; allowed: nano"),
        ({"model": "another"}, "this session's model is 'nano'"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {"type": 3}}]}, "no JSON Schema"),
        ({"tools": [{"type": "function", "name": "f"}] * 2}, "do not have a name each"),
        ({"instructions": "a " * 60_000}, "at most 100000"),
        ({"instructions": "a " * 5000}, "the caches hold 4096"),
    ],
)
def test_settings_that_are_not_supported_change_nothing(change: dict[str, Any], reason: str) -> None:
    asked = {"type": "session.update", "event_id": "e1", "session": {**change, "max_output_tokens": 7}}
    again = {"type": "session.update", "session": {}}
    (error,), (updated,) = talked({"type": "input_audio_buffer.clear"}, asked, again)[1:]
    assert reason in error["error"]["message"]
    assert error["error"]["event_id"] == "e1"
    assert updated["session"]["max_output_tokens"] == "inf"


def test_settings_are_changed_one_by_one() -> None:
    config = SessionConfig().updated({"audio": {"input": {"turn_detection": {"threshold": 0.9}}}})
    vad = config.audio.input.turn_detection
    assert vad is not None
    assert (vad.threshold, vad.silence_duration_ms) == (0.9, 500)
    off = config.updated({"audio": {"input": {"turn_detection": None}}})
    assert off.audio.input.turn_detection is None
    on = off.updated({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert on.audio.input.turn_detection == SessionConfig().audio.input.turn_detection


def test_the_buffer_has_an_end() -> None:
    off = {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}
    append = {"type": "input_audio_buffer.append", "audio": AUDIO}  # 1.7 s
    commit = {"type": "input_audio_buffer.commit"}
    answers = talked(off, append, append, commit, limits=Limits(max_turn_seconds=2.0))
    assert answers[1] == []
    assert answers[2][0]["error"]["code"] == "input_audio_buffer_full"
    assert answers[3][0]["type"] == "input_audio_buffer.committed"


def test_conversations_have_an_end() -> None:
    create = {"type": "conversation.item.create", "item": TEXT_ITEM}
    assert refusal(create, create, create, limits=Limits(max_items=2))["code"] == "too_many_items"
    assert refusal("x" * 101, limits=Limits(max_message_bytes=100))["code"] == "message_too_large"


def test_old_turns_are_forgotten_when_the_caches_are_full() -> None:
    engine = FakeEngine()
    engine.backbone.capacity = 300
    create = {
        "type": "conversation.item.create",
        "item": {**TEXT_ITEM, "content": [{"type": "input_text", "text": "a " * 60}]},
    }
    respond = {"type": "response.create"}
    talked(*[create, respond] * 3, engine=engine)
    assert [len(messages) for messages in engine.questions] == [2, 4, 4]
    engine.questions.clear()
    whole = {"type": "session.update", "session": {"truncation": "disabled"}}
    talked(whole, *[create, respond] * 3, engine=engine)
    assert [len(messages) for messages in engine.questions] == [2, 4, 6]


def test_sessions_begin_with_the_bundles_system_prompt() -> None:
    engine = FakeEngine()
    (update,) = talked({"type": "session.update", "session": {}}, engine=engine)
    assert update[-1]["session"]["instructions"] == engine.system_prompt(speech=True)
    create = {"type": "conversation.item.create", "item": TEXT_ITEM}
    in_text = {"type": "response.create", "response": {"output_modalities": ["text"]}}
    talked(create, {"type": "response.create"}, engine=engine)
    talked(create, in_text, engine=engine)
    assert [messages[0].text for messages in engine.questions] == ["Speak.", "Write."]


def test_a_response_beside_the_conversation() -> None:
    engine = FakeEngine()
    beside = {"conversation": "none", "instructions": "Sort.", "input": [TEXT_ITEM], "output_modalities": ["text"]}
    create = {"type": "conversation.item.create", "item": TEXT_ITEM}
    answers = talked(
        create, {"type": "response.create", "response": beside}, {"type": "response.create"}, engine=engine
    )
    assert not [event for event in answers[1] if event["type"].startswith("conversation.")]
    assert answers[1][-1]["response"]["conversation_id"] is None
    assert [message.text for message in engine.questions[0]] == ["Sort.", "Hi."]
    assert len(engine.questions[1]) == 2  # the answer beside is not in it


def test_messages_of_items() -> None:
    spoken = written_message("assistant", [{"type": "output_text", "text": "So."}])
    items = [
        written_message("system", [{"type": "input_text", "text": "Be brief."}]),
        written_message("user", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
        spoken,
        function_call("c1", "lamp", '{"room": 3}'),
        function_call("c2", "lamp", "{}", '{"name": "lamp", "arguments": {}}'),
        function_call_output("c1", '{"on": true}'),
        function_call_output("c2", "done"),
    ]
    roles = [(message.role, message.text) for message in messages_of(items)]
    first = '<tool_call>\n{"name": "lamp", "arguments": {"room": 3}}\n</tool_call>'
    second = '<tool_call>{"name": "lamp", "arguments": {}}</tool_call>'
    results = '<tool_response>\n{"on": true}\n</tool_response>\n<tool_response>\n"done"\n</tool_response>'
    assert roles == [
        ("system", "Be brief."), ("user", "a\nb"), ("assistant", f"So.{first}{second}"), ("user", results),
    ]  # fmt: skip


def test_words_up_to_a_moment() -> None:
    said = Spoken(lambda ids: "".join(chr(96 + i) for i in ids), [1, 2, 3, 4], [(0.0, 1), (200.0, 3)], 400.0, True)
    assert [said.words(ms) for ms in (0, 1, 200, 201, 400)] == ["", "a", "a", "abc", "abcd"]


def test_a_history_keeps_its_order() -> None:
    history = History(10)
    items = [written_message("user", [{"type": "input_text", "text": t}], t) for t in "abc"]
    assert history.insert(items[0]) is None
    assert history.insert(items[1], "root") is None
    assert history.insert(items[2], "b") == "b"
    assert [item.id for item in history] == ["b", "c", "a"]
    with pytest.raises(ClientError, match="there already"):
        history.insert(Item({"id": "a"}))


def test_limits_that_are_none() -> None:
    with pytest.raises(RequestError, match=r"max_sessions 0 .*; max_turn_seconds 300 is not in 1 \.\. 299"):
        Limits(max_sessions=0, max_turn_seconds=300)


def test_samples() -> None:
    assert pcm_of("AQACAP//").tolist() == [1, 2, -1]
