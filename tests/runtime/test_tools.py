"""Tools: what the model is told, what is read out of its text, and what comes of a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from facrt.errors import RequestError
from facrt.runtime.conversation import Conversation
from facrt.runtime.engine import Engine, load
from facrt.runtime.events import TextDelta, ToolCall, ToolCallFailed, TurnEnded
from facrt.runtime.tools import CallReader, Tool, Toolbox, response_text
from hypothesis import given, settings
from hypothesis import strategies as st

SCHEMA = {"type": "object", "properties": {"room": {"type": "integer"}}, "required": ["room"]}
LAMP = Tool("lamp", "Switches a lamp.", SCHEMA, lambda room: {"on": room})
CALL = '{"name": "lamp", "arguments": {"room": 3}}'


def test_the_model_is_told() -> None:
    text = Toolbox([LAMP]).describe()
    inside = text.split("<tools>\n")[1].split("\n</tools>")[0]
    assert json.loads(inside)["function"] == {"name": "lamp", "description": LAMP.description, "parameters": SCHEMA}
    assert Toolbox([]).describe() == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no JSON"),
        ("[]", "is not"),
        ('{"name": "lamp"}', "is not"),
        ('{"name": "lamp", "arguments": 3}', "is not"),
        ('{"name": "door", "arguments": {}}', "there is no tool 'door'; declared: lamp"),
        ('{"name": "lamp", "arguments": {}}', "'room' is a required property"),
        ('{"name": "lamp", "arguments": {"room": "a"}}', "'a' is not of type 'integer'"),
        ('{"name": ["lamp"], "arguments": {}}', "there is no tool"),
    ],
)
def test_calls_that_cannot_be_run(text: str, reason: str) -> None:
    event = Toolbox([LAMP]).read(text, "c", 1)
    assert isinstance(event, ToolCallFailed)
    assert reason in event.reason
    assert event.text == text


def test_schemas_that_cannot_be_followed() -> None:
    for reference in ("#", "#/nowhere", "http://127.0.0.1:9/schema.json"):
        event = Toolbox([Tool("lamp", "", {"$ref": reference})]).read('{"name": "lamp", "arguments": {}}', "c", 1)
        assert isinstance(event, ToolCallFailed)
        assert "cannot be checked" in event.reason


def test_toolboxes_that_are_none() -> None:
    with pytest.raises(RequestError, match="a name each"):
        Toolbox([LAMP, LAMP])
    with pytest.raises(RequestError, match="no JSON Schema"):
        Toolbox([Tool("x", "", {"type": 3})])


PIECES = ("<tool_call>", "</tool_call>", "a", "<", "<tool_", "call>", "{}")


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9), st.data())
def test_reading_does_not_depend_on_how_text_comes(parts: list[str], data: Any) -> None:
    text = "".join(parts)
    whole, apart = CallReader(), CallReader()
    wanted = [*whole.feed(text), whole.finish()]
    found = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        found += apart.feed(text[:size])
        text = text[size:]
    found.append(apart.finish())

    def joined(pieces: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
        merged: list[tuple[bool, str]] = []
        for is_call, words in pieces:
            if merged and not is_call and not merged[-1][0]:
                merged[-1] = (False, merged[-1][1] + words)
            elif words or is_call:
                merged.append((is_call, words))
        return merged

    assert joined(found) == joined(wanted)


@pytest.fixture(scope="module")
def roomy_engine(golden_bundle: Path) -> Engine:
    """With room for what the system prompt says of tools, of which the golden tokenizer makes a token a byte."""
    return load(golden_bundle, max_positions=1536)


class Saying:
    """An engine's text decoder that makes answers say what the test wants, one answer after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.current = ""

    def __call__(self, text_ids: Any) -> str:
        if len(text_ids) == 1 and self.answers:
            self.current = self.answers.pop(0)
        return self.current[: 7 * len(text_ids)]


OPTIONS: dict[str, Any] = {"greedy": True, "max_steps": 12, "eos_token_id": -1, "synthesize": False}


def spoken(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tools: list[Tool], *answers: str
) -> tuple[Conversation, list]:
    monkeypatch.setattr(engine.prompter, "decode", Saying(*answers))
    talk = engine.conversation(tools=tools)
    return talk, list(talk.stream(text="Light!", **OPTIONS))


def test_a_call_is_run_and_its_result_answered(roomy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, events = spoken(roomy_engine, monkeypatch, [LAMP], f"So <tool_call>{CALL}</tool_call> ok", "It is on.")
    (call,) = [e for e in events if isinstance(e, ToolCall)]
    assert (call.name, call.arguments) == ("lamp", {"room": 3})
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "So  okIt is on."
    assert [type(e) for e in events].count(TurnEnded) == 1
    assert [m.role for m in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert talk.messages[2].text == f"So <tool_call>{CALL}</tool_call> ok"
    assert talk.messages[3].text == response_text([{"on": 3}])
    assert "<tools>" in (talk.messages[0].text or "")


def test_a_tool_that_raises_is_told_to_the_model(roomy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Tool("lamp", "", SCHEMA, lambda room: 1 / 0)
    talk, _ = spoken(roomy_engine, monkeypatch, [broken], f"<tool_call>{CALL}</tool_call>", "Sorry.")
    assert "ZeroDivisionError" in (talk.messages[3].text or "")


def test_the_host_answers_a_call(roomy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = Tool("lamp", "", SCHEMA)
    talk, events = spoken(roomy_engine, monkeypatch, [lamp], f"<tool_call>{CALL}</tool_call>", "It is on.")
    (call,) = [e for e in events if isinstance(e, ToolCall)]
    assert isinstance(events[-1], TurnEnded)
    with pytest.raises(RequestError, match="waits for its tool_result"):
        list(talk.stream())
    with pytest.raises(RequestError, match="'x' is not open; open: call_1"):
        talk.tool_result("x", 1)
    talk.tool_result(call.call_id, {"on": True})
    list(talk.stream(**OPTIONS))
    assert talk.messages[3].text == '<tool_response>\n{"on": true}\n</tool_response>'
    assert talk.messages[4].text == "It is on."


def test_a_bad_call_is_an_event(roomy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, reason in (("<tool_call>{</tool_call>", "no JSON"), (f"<tool_call>{CALL}", "never closed")):
        talk, events = spoken(roomy_engine, monkeypatch, [LAMP], text)
        (failed,) = [e for e in events if isinstance(e, ToolCallFailed)]
        assert reason in failed.reason
        assert isinstance(events[-1], TurnEnded)
        assert len(talk.messages) == 3
