"""A running server, the openai client's connection to it, and an engine that is none, for tests of the server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import uvicorn
from facrt.errors import AudioError
from facrt.model.settings import GenerationSettings
from facrt.runtime.events import AudioChunk, TextDelta
from facrt.server.app import Access, Server
from facrt.server.desk import Desk
from facrt.server.limits import HARD_MESSAGE_FACTOR, Limits

GREEDY: dict[str, Any] = {"greedy": True}


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
def running(
    engine: Any, limits: Limits | None = None, access: Access | None = None, **options: Any
) -> Iterator[Running]:
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
        """All events of that type so far."""
        return [event for event in self.events if event.type == kind]

    def push_to_talk(self) -> None:
        self.connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        self.until("session.updated")

    def write(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        self.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})

    def answer(self, **fields: Any) -> Any:
        """A response, to its end; the events are those since it was asked for."""
        self.events.clear()
        self.connection.response.create(**fields)
        return self.until("response.done").response


@contextlib.contextmanager
def connected(url: str, api_key: str = "none") -> Iterator[Client]:
    """A session of the openai package's."""
    base = f"{url.rstrip('/')}/v1"
    client = openai.OpenAI(api_key=api_key, base_url=base, websocket_base_url=base.replace("http", "ws", 1))
    with client.realtime.connect(model="nano") as connection:
        talk = Client(connection)
        talk.until("session.created")
        yield talk


def hum(seconds: float, silence_seconds: float = 1.0) -> np.ndarray:
    """A hum between silences, voice enough for a detector of energy; 24 kHz int16 [N]."""
    time_s = np.arange(int(24_000 * seconds)) / 24_000
    sound = sum(np.sin(2 * np.pi * 130 * k * time_s) / k for k in range(1, 12)) * 4000
    return np.concatenate([np.zeros(12_000), sound, np.zeros(int(24_000 * silence_seconds))]).astype(np.int16)


class FakeEngine:
    """Answers "word word ..." with half a second of sound for each, as slowly as the test lets it."""

    def __init__(self, num_words: int = 3) -> None:
        self.num_words = num_words
        self.may_speak = threading.Event()  # answers wait for it behind their first word
        self.may_speak.set()
        self.questions: list[list[Any]] = []
        self.has_audio = True
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(speakers={"nano": 0}))
        self.detokenizer = SimpleNamespace(sample_rate=24_000)
        self.backbone = SimpleNamespace(capacity=4096)
        self.config = SimpleNamespace(eos_ids=(0,))
        self.hearing = SimpleNamespace(embed=lambda message: np.zeros((len(message.audio) // 3200 + 1, 4), np.float32))
        self.prompter = SimpleNamespace(encode=self._encode, decode=lambda ids: " ".join("word" for i in ids if i))

    def _encode(self, messages: list[Any]) -> np.ndarray:
        return np.zeros(sum(1 + len((message.text or "").split()) for message in messages), np.int64)

    def system_prompt(self, speech: bool) -> str:
        return "Speak." if speech else "Write."

    def listener(self) -> Any:
        return FakeListener()

    def read_ahead(self, messages: Any, rows: Any, speech: bool) -> None:
        self._encode(messages)

    def begin(self, messages: list[Any], number: int, waterfall: Any, **options: Any) -> tuple[Any, tuple]:
        self.questions.append(messages)
        settings = GenerationSettings(max_new_tokens=options["max_steps"])
        return FakeAnswer(self, number, options["speech"]), (self._encode(messages), np.zeros((0, 4)), settings)


class FakeAnswer:
    """One answer of a `FakeEngine`."""

    def __init__(self, engine: FakeEngine, number: int, speech: bool) -> None:
        self._engine, self._number, self._speech = engine, number, speech
        self._stopped = threading.Event()
        self.turn = SimpleNamespace(text_ids=[], speech_ids=[])
        self.groups: list[tuple[float, int]] = []
        self.complete = False

    def interrupt(self) -> None:
        self._stopped.set()

    def events(self, *_: Any) -> Iterator[Any]:
        for i in range(self._engine.num_words):
            self.turn.text_ids.append(1)
            yield TextDelta("word" if not i else " word", self._number)
            while not self._engine.may_speak.wait(0.005):
                if self._stopped.is_set():
                    return
            if self._stopped.is_set():
                return
            if self._speech:
                self.turn.speech_ids += [7] * 12
                self.groups.append((500.0 * i, i + 1))
                yield AudioChunk(np.full(12_000, 0.1, np.float32), 24_000, 500.0 * i, self._number)
        self.turn.text_ids.append(0)
        self.complete = True


class FakeListener:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.num_samples = self.num_encoded = 0

    @property
    def rows(self) -> np.ndarray:
        return np.zeros((self.num_samples // 3200, 4), np.float32)

    def feed(self, pcm: np.ndarray) -> None:
        if self.num_samples + len(pcm) > 300 * 16_000:
            raise AudioError("the audio is longer than 300 s")
        self.num_samples += len(pcm)
        self.num_encoded = self.num_samples // 32_000

    def finish(self) -> np.ndarray:
        return self.rows
