"""Who may connect, and how much: keys, origins, sessions, the queue, sizes, time; nothing refused ends in silence."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from facrt.server.app import Access
from facrt.server.limits import Limits
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

sys.path.insert(0, str(Path(__file__).parent))
from serving import FakeEngine, Running, running

HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}


def received(connection: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of that type."""
    while True:
        event = json.loads(connection.recv(timeout=30))
        if event["type"] == kind:
            return event


def send(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def ask(connection: ClientConnection) -> None:
    send(connection, "conversation.item.create", item=HELLO)
    send(connection, "response.create", event_id="asked")


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def refused(url: str, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as found, connect(url, **options):
        pass
    return found.value.response.status_code


@pytest.fixture(scope="module")
def server() -> Any:
    with running(FakeEngine()) as server:
        yield server


def test_a_key_is_needed_where_one_is_set() -> None:
    with running(FakeEngine(), access=Access("hunter2", is_loopback=False)) as server:
        assert refused(server.realtime) == 401
        assert refused(server.realtime, additional_headers={"Authorization": "Bearer hunter"}) == 401
        assert refused(server.realtime, subprotocols=["realtime", "openai-insecure-api-key.no"]) == 401
        with connect(server.realtime, additional_headers={"Authorization": "Bearer hunter2"}) as connection:
            received(connection, "session.created")
        offered: Any = ["realtime", "openai-insecure-api-key.hunter2"]
        with connect(server.realtime, subprotocols=offered, origin="https://elsewhere") as connection:  # type: ignore[arg-type]
            assert connection.subprotocol == "realtime"
            received(connection, "session.created")
        for path in ("/metrics", "/v1/models"):
            assert status(server.url + path) == 401
            assert status(server.url + path, Authorization="Bearer hunter2") == 200
        assert status(server.url + "/health") == status(server.url + "/") == 200


def test_pages_of_others_may_not_connect(server: Running) -> None:
    assert refused(server.realtime, origin="https://elsewhere.example") == 403
    assert refused(server.realtime, origin=f"http://127.0.0.1:{server.port + 1}") == 403
    with connect(server.realtime, origin=server.url) as connection:  # type: ignore[arg-type]
        received(connection, "session.created")
    assert status(server.url + "/metrics", Host="rebound.example") == 403  # a name that was made to lead here


def test_an_origin_can_be_allowed() -> None:
    with running(FakeEngine(), access=Access(origins=("https://robot.example",))) as server:
        with connect(server.realtime, origin="https://robot.example") as connection:  # type: ignore[arg-type]
            received(connection, "session.created")
        assert refused(server.realtime, origin="https://other.example") == 403


def test_sessions_are_counted() -> None:
    with running(FakeEngine(), Limits(max_sessions=1)) as server:
        with connect(server.realtime) as first:
            received(first, "session.created")
            with connect(server.realtime) as second:
                assert received(second, "error")["error"]["code"] == "too_many_sessions"
                with pytest.raises(ConnectionClosed) as closed:
                    second.recv(timeout=30)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
            ask(first)
            received(first, "response.done")
        for _ in range(100):  # the server notices the end in its own time
            with connect(server.realtime) as third:
                if json.loads(third.recv(timeout=30))["type"] == "session.created":
                    return
            time.sleep(0.05)
        pytest.fail("a session that ended is still counted")


def test_busy() -> None:
    engine = FakeEngine()
    engine.may_speak.clear()
    with (
        running(engine, Limits(max_waiting=1)) as server,
        connect(server.realtime) as one,
        connect(server.realtime) as two,
        connect(server.realtime) as three,
    ):
        ask(one)
        received(one, "response.output_item.added")  # it is being answered
        ask(two)
        received(two, "response.created")  # it waits
        ask(three)
        error = received(three, "error")["error"]
        assert (error["code"], error["type"], error["event_id"]) == ("busy", "server_error", "asked")
        send(one, "response.create")
        assert received(one, "error")["error"]["code"] == "conversation_already_has_active_response"
        send(two, "response.cancel")
        assert received(two, "response.done")["response"]["status"] == "cancelled"  # it need not come to its turn
        send(three, "response.create")
        received(three, "response.created")  # there is room again
        send(three, "response.cancel")
        assert received(three, "response.done")["response"]["status"] == "cancelled"
        engine.may_speak.set()
        assert received(one, "response.done")["response"]["status"] == "completed"
        send(three, "response.create")
        assert received(three, "response.done")["response"]["status"] == "completed"


def test_a_client_that_goes_frees_the_engine() -> None:
    engine = FakeEngine()
    engine.may_speak.clear()
    with running(engine) as server:
        with connect(server.realtime) as one:
            ask(one)
            received(one, "response.output_item.added")
        with connect(server.realtime) as two:
            ask(two)
            received(two, "response.output_item.added")
            engine.may_speak.set()
            assert received(two, "response.done")["response"]["status"] == "completed"


def test_messages_are_measured() -> None:
    with running(FakeEngine(), Limits(max_message_bytes=1000)) as server, connect(server.realtime) as connection:
        received(connection, "session.created")
        connection.send("x" * 3000)
        assert received(connection, "error")["error"]["code"] == "message_too_large"
        connection.send(b"\0" * 10)
        assert "binary" in received(connection, "error")["error"]["message"]
        ask(connection)
        received(connection, "response.done")  # it is alive
        connection.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as closed:
            received(connection, "error")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_sessions_have_an_end() -> None:
    with running(FakeEngine(), Limits(max_session_seconds=0.3)) as server, connect(server.realtime) as connection:
        assert received(connection, "error")["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=30)


def test_who_does_not_read_is_left() -> None:
    limits = Limits(max_unread_bytes=100_000)
    with running(FakeEngine(num_words=200), limits) as server:
        with connect(server.realtime, max_queue=1) as connection:
            ask(connection)  # 6 MB of sound, faster than a socket's buffers take without a reader
            for _ in range(200):
                if json.loads(urllib.request.urlopen(f"{server.url}/health").read())["sessions"] == 0:
                    break
                time.sleep(0.05)
            else:
                pytest.fail("a session whose client does not read goes on")
        with connect(server.realtime) as connection:
            received(connection, "session.created")


def test_health_and_metrics(server: Running) -> None:
    with connect(server.realtime) as connection:
        ask(connection)
        send(connection, "nonsense")
        received(connection, "response.done")
        health = json.loads(urllib.request.urlopen(f"{server.url}/health").read())
        assert (health["status"], health["model"], health["waiting"]) == ("ok", "nano", 0)
        assert health["sessions"] >= 1
        text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    assert "facrt_open_sessions 1.0" in text
    assert 'facrt_responses_total{status="completed"}' in text
    assert 'facrt_refusals_total{code="unknown_event"} 1.0' in text
    assert 'facrt_phase_seconds_count{phase="done"}' in text
    assert "process_resident_memory_bytes" in text
    models = json.loads(urllib.request.urlopen(f"{server.url}/v1/models").read())
    assert [model["id"] for model in models["data"]] == ["nano"]
