"""A running server and the openai client's connection to it: what tests of the server share."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai
import uvicorn
from facrt.runtime.engine import Engine
from facrt.server.app import Access, Server
from facrt.server.desk import Desk
from facrt.server.limits import HARD_MESSAGE_FACTOR, Limits

GREEDY: dict[str, Any] = {"greedy": True}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """One that listens."""

    port: int
    desk: Desk

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def realtime(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"


@contextlib.contextmanager
def running(engine: Engine, limits: Limits | None = None, access: Access | None = None, **options: Any) -> Iterator[Running]:
    """Serves an engine from a thread, as `facrt serve` would."""
    limits = limits or Limits()
    desk = Desk(engine, limits.max_waiting, {**GREEDY, **options})
    app = Server(desk, "nano", limits, access, "energy").app()
    size = HARD_MESSAGE_FACTOR * limits.max_message_bytes
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws_max_size=size, ws_per_message_deflate=False))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Running(listening.getsockname()[1], desk)
    finally:
        server.should_exit = True
        thread.join()


class Client:
    """The openai package's connection, and all events that came."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []

    def until(self, kind: str) -> Any:
        """The next event of that type."""
        while True:
            event = self.connection.recv()
            self.events.append(event)
            if event.type == kind:
                return event

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]


@contextlib.contextmanager
def connected(server: Running, api_key: str = "none") -> Iterator[Client]:
    client = openai.OpenAI(api_key=api_key, base_url=f"{server.url}/v1", websocket_base_url=f"ws://127.0.0.1:{server.port}/v1")
    with client.realtime.connect(model="nano") as connection:
        talk = Client(connection)
        talk.until("session.created")
        yield talk


def question_pcm(seconds: float = 1.5) -> np.ndarray:
    """A hum with silence before and behind it, 24 kHz int16 [N]: voice enough for a detector of energy."""
    time_s = np.arange(int(24_000 * seconds)) / 24_000
    hum = sum(np.sin(2 * np.pi * 130 * k * time_s) / k for k in range(1, 12)) * 4000
    silence = np.zeros(12_000)
    return np.concatenate([silence, hum, np.zeros(24_000)]).astype(np.int16)
