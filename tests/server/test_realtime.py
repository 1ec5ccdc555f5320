"""The openai package's Realtime client against a running server: every kind of turn."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facrt.runtime.engine import Engine, load
from facrt.runtime.events import AudioChunk, TurnEnded
from goldens import waveforms
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).parent))
from serving import GREEDY, Client, Running, connected, hum, running

LAMP_QUESTION, LAMP_ANSWER = "Turn on the kitchen lamp.", "The kitchen lamp is now on."
TIMER_QUESTION, TIMER_ANSWER = "Set a timer for ten minutes.", "The timer runs for ten minutes."
LAMP = {
    "type": "function", "name": "lamp", "description": "Switches a lamp.",
    "parameters": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(nano_bundle: Path) -> Engine:
    return load(nano_bundle)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Any:
    with running(engine) as server:
        yield server


@pytest.fixture(scope="module")
def endless(engine: Engine, server: Running) -> Any:
    """The same engine, whose answers do not end; the tests use one of the two at a time."""
    with running(engine, eos_token_id=-1) as endless:
        yield endless


def encoded(pcm: np.ndarray) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


def spoken(client: Client) -> np.ndarray:
    """All audio that came, float [N]."""
    data = b"".join(base64.b64decode(event.delta) for event in client.of("response.output_audio.delta"))
    return np.frombuffer(data, "<i2") / 32767


def transcript(client: Client) -> str:
    (done,) = client.of("response.output_audio_transcript.done")
    assert "".join(event.delta for event in client.of("response.output_audio_transcript.delta")) == done.transcript
    return done.transcript


def test_a_text_turn(engine: Engine, server: Running) -> None:
    with connected(server.url) as client:
        assert client.events[0].session.audio.output.voice == "nano"
        client.write(LAMP_QUESTION)
        response = client.answer()
        assert response.status == "completed"
        assert transcript(client) == LAMP_ANSWER
        expected = engine.conversation().respond(text=LAMP_QUESTION, greedy=True)
        assert response.usage.output_token_details.text_tokens == len(expected.text_ids)
        assert response.usage.output_token_details.audio_tokens == len(expected.speech_ids)
        assert expected.audio is not None
        assert len(spoken(client)) == len(expected.audio)
        assert float(np.sqrt((spoken(client) ** 2).mean())) > 0.02
        (failed,) = client.of("error")  # nano calls its lamp, which no client declared
        assert (failed.error.code, "no tool 'lamp'" in failed.error.message) == ("tool_call_failed", True)
        kinds = [event.type for event in client.events if event.type.startswith("response.")]
        assert [kind for kind in kinds if not kind.endswith("delta")] == [
            "response.created", "response.output_item.added", "response.content_part.added",
            "response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done",
            "response.output_item.done", "response.done",
        ]  # fmt: skip


def test_an_answer_in_text(server: Running) -> None:
    with connected(server.url) as client:
        client.write(LAMP_QUESTION)
        response = client.answer(response={"output_modalities": ["text"], "metadata": {"topic": "lamps"}})
        assert response.status == "completed"
        assert response.metadata == {"topic": "lamps"}
        assert response.output[0].content[0].text == LAMP_ANSWER
        assert not client.of("response.output_audio.delta")
        assert "".join(event.delta for event in client.of("response.output_text.delta")) == LAMP_ANSWER


def test_a_spoken_turn_that_the_server_detects(server: Running) -> None:
    with connected(server.url) as client:
        pcm = hum(1.5)
        for i in range(0, len(pcm), 2400):
            client.connection.input_audio_buffer.append(audio=encoded(pcm[i : i + 2400]))
        response = client.until("response.done").response
        assert response.status == "completed"
        order = [
            "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
            "conversation.item.added", "conversation.item.done", "response.created",
        ]  # fmt: skip
        assert [event.type for event in client.events[1:7]] == order
        started, stopped, committed = client.events[1:4]
        assert started.item_id == stopped.item_id == committed.item_id
        assert 0 < started.audio_start_ms < 500  # the hum begins at 500 ms; the pre-roll lies before it
        assert 2400 < stopped.audio_end_ms < 2700  # it ends at 2000 ms, and 500 ms of silence end the turn
        assert len(spoken(client)) > 0
        assert response.usage.input_token_details.audio_tokens >= 10  # of 5 a second


def test_push_to_talk_equals_the_runtime(engine: Engine, server: Running) -> None:
    pcm = waveforms("u3p7")[0]  # its rate does not matter here
    with engine.conversation() as talk, connected(server.url) as client:
        talk.feed(pcm, 24_000)
        events = list(talk.stream(**GREEDY))
        client.push_to_talk()
        for i in range(0, len(pcm), 777):
            client.connection.input_audio_buffer.append(audio=encoded(pcm[i : i + 777]))
        client.connection.input_audio_buffer.commit()
        response = client.answer()
        end = events[-1]
        assert isinstance(end, TurnEnded)
        assert response.usage.output_token_details.text_tokens == len(end.text_ids)
        assert response.usage.output_token_details.audio_tokens == len(end.speech_ids)
        said = [event.pcm for event in events if isinstance(event, AudioChunk)]
        np.testing.assert_allclose(spoken(client), np.concatenate(said), atol=1.5 / 32767)


def test_a_cancelled_turn(endless: Running) -> None:
    with connected(endless.url) as client:
        client.write(LAMP_QUESTION)
        client.connection.response.create()
        client.until("response.output_audio.delta")
        client.connection.response.cancel()
        response = client.until("response.done").response
        assert response.status == "cancelled"
        assert response.status_details.reason == "client_cancelled"
        assert response.output[0].status == "incomplete"
        client.connection.response.cancel()
        assert client.until("error").error.code == "response_cancel_not_active"
        client.connection.response.create()
        assert client.until("error").error.code == "nothing_to_answer"


def test_the_user_cuts_in(endless: Running) -> None:
    with connected(endless.url) as client:
        client.write(LAMP_QUESTION)
        client.connection.response.create()
        client.until("response.output_audio.delta")
        client.connection.input_audio_buffer.append(audio=encoded(hum(1.0, 0.0)))
        response = client.until("response.done").response
        assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")


def test_an_answer_of_limited_length(endless: Running) -> None:
    with connected(endless.url) as client:
        client.write(LAMP_QUESTION)
        response = client.answer(response={"max_output_tokens": 6})
        assert (response.status, response.status_details.reason) == ("incomplete", "max_output_tokens")
        assert response.usage.output_token_details.text_tokens == 6


def test_a_truncated_turn_equals_the_runtime(engine: Engine, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Any]] = []
    begin = engine.begin
    monkeypatch.setattr(engine, "begin", lambda messages, *a, **k: asked.append(messages) or begin(messages, *a, **k))
    with engine.conversation() as talk:
        list(talk.stream(text=LAMP_QUESTION, **GREEDY))
        talk.truncate(700)
        kept = talk.messages[2].text or ""
    with connected(server.url) as client:
        client.write(LAMP_QUESTION)
        item = client.answer().output[-1]
        assert item.type == "message"
        truncate = client.connection.conversation.item.truncate
        truncate(item_id=item.id, content_index=0, audio_end_ms=60_000)
        assert "beyond" in client.until("error").error.message
        truncate(item_id=item.id, content_index=0, audio_end_ms=700)
        assert client.until("conversation.item.truncated").audio_end_ms == 700
        client.connection.conversation.item.retrieve(item_id=item.id)
        assert client.until("conversation.item.retrieved").item.content[0].transcript is None
        client.write(TIMER_QUESTION)
        client.answer()
    roles = [message.role for message in asked[-1]]
    assert roles == ["system", "user", "assistant", "user"]
    words = asked[-1][2].text
    assert LAMP_ANSWER.startswith(words)
    assert words != LAMP_ANSWER
    assert kept.endswith(words)  # the runtime keeps the call before them


class Saying:
    """An engine's text decoder that makes answers say what the test wants, one answer after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.current = list(answers), ""

    def __call__(self, text_ids: Any) -> str:
        if len(text_ids) == 1 and self.answers:
            self.current = self.answers.pop(0)
        return self.current[: 9 * len(text_ids)]


def test_a_tool_call(engine: Engine, endless: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Any]] = []
    begin = engine.begin
    monkeypatch.setattr(engine, "begin", lambda messages, *a, **k: asked.append(messages) or begin(messages, *a, **k))
    call = '{"name": "lamp", "arguments": {"room": "kitchen"}}'
    monkeypatch.setattr(engine.prompter, "decode", Saying(f"<tool_call>{call}</tool_call>One moment.", "It is on."))
    limit = {"max_output_tokens": 12}
    with connected(endless.url) as client:
        client.connection.session.update(session={"type": "realtime", "tools": [LAMP]})
        assert client.until("session.updated").session.tools[0].name == "lamp"
        client.write(LAMP_QUESTION)
        response = client.answer(response=limit)
        called, message = sorted(response.output, key=lambda item: item.type)  # sound may come before the call
        assert (called.type, called.name, json.loads(called.arguments)) == (
            "function_call",
            "lamp",
            {"room": "kitchen"},
        )
        (done,) = client.of("response.function_call_arguments.done")
        assert (done.call_id, done.arguments) == (called.call_id, called.arguments)
        assert message.content[0].transcript == "One moment."
        output = {"type": "function_call_output", "call_id": called.call_id, "output": '{"on": true}'}
        client.connection.conversation.item.create(item=output)
        client.answer(response=limit)
        assert transcript(client) == "It is on."
    assert "<tools>" in (asked[0][0].text or "")
    said = asked[1][2].text
    assert sorted([f"<tool_call>{call}</tool_call>", "One moment."]) == sorted(said.partition("One moment."))[1:]
    assert asked[1][3].text == '<tool_response>\n{"on": true}\n</tool_response>'


def test_two_sessions_do_not_mix(server: Running) -> None:
    with connected(server.url) as one, connected(server.url) as two:
        one.write(LAMP_QUESTION)
        two.write(TIMER_QUESTION)
        one.connection.response.create()
        two.connection.response.create()
        one.until("response.done")
        two.until("response.done")
        assert (transcript(one), transcript(two)) == (LAMP_ANSWER, TIMER_ANSWER)


def test_mistakes_of_the_command_line(facrt: Any, nano_bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot be listened on" in facrt.refusal("serve", nano_bundle, "--port", port)
    (tmp_path / "k.pem").write_text("no key")
    mistakes = {
        ("--host", "0.0.0.0"): "set an API key",
        ("--api-key", "a b"): "letters, digits",
        ("--tls-key", "k.pem"): "both --tls-cert and --tls-key",
        ("--tls-key", tmp_path / "k.pem", "--tls-cert", tmp_path / "k.pem"): "no certificate",
        ("--max-sessions", 0): "max_sessions 0 is not at least 1",
        ("--detector", "nose"): "allowed: silero, energy",
    }
    for arguments, reason in mistakes.items():
        assert reason in facrt.refusal("serve", nano_bundle, *arguments)
    assert "manifest.json" in facrt.refusal("serve", tmp_path, "--port", 0)


def test_the_command_serves(nano_bundle: Path) -> None:
    command = [sys.executable, "-m", "facrt.cli", "serve", str(nano_bundle), "--port", "0", "--json", "--greedy"]
    environment = {**os.environ, "FACRT_API_KEY": "hunter2"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        with connected(addresses["page"], api_key="hunter2") as client:
            client.write(LAMP_QUESTION)
            assert client.answer(response={"output_modalities": ["text"]}).output[0].content[0].text == LAMP_ANSWER
            process.terminate()
            with pytest.raises(ConnectionClosed):
                client.until("never")
        assert process.wait(timeout=60) == -signal.SIGTERM
