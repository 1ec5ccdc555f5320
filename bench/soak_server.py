"""Turns over a server by clients that leave, babble, overflow and dawdle: memory stays flat, all are answered."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, at_least, check, finish
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE_SECONDS = 300.0
MESSAGE_KIB = 128
HARD_FACTOR = 4  # of facrt.server.limits
NONSENSE = (
    "{", "[]", "null", '{"type": 3}', '{"type": "nonsense"}', '{"type": "response.create", "response": {"x": 1}}',
    '{"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}',
    '{"type": "input_audio_buffer.append", "audio": "AAA"}', '{"type": "conversation.item.delete", "item_id": "none"}',
    '{"type": "conversation.item.truncate", "item_id": "none", "content_index": 0, "audio_end_ms": 1}',
)  # fmt: skip

BESIDE = ("tool_call_failed", "response_cancel_not_active")  # errors that refuse nothing of what is tried here


class Unanswered(Exception):
    """The server said nothing for too long, or not what it should."""


def hum(seconds: float) -> str:
    """A spoken turn for a voice detector of energy, base64."""
    time_s = np.arange(int(24_000 * seconds)) / 24_000
    sound = sum(np.sin(2 * np.pi * 130 * k * time_s) / k for k in range(1, 12)) * 4000
    pcm = np.concatenate([np.zeros(6_000), sound, np.zeros(18_000)]).astype("<i2")
    return base64.b64encode(pcm.tobytes()).decode()


class Client:
    """One of the sessions; it connects again whenever it has left."""

    def __init__(self, url: str, seed: int, steps: int, tally: Counter[str]) -> None:
        self._url, self._random, self._steps, self._tally = url, random.Random(seed), steps, tally
        self._socket: ClientConnection | None = None

    async def turn(self) -> None:
        """One turn of a random kind."""
        kinds = {
            self._text: 4, self._spoken: 2, self._cancelled: 2, self._leaves: 2, self._babbles: 2, self._overflows: 1,
            self._bursts: 1, self._dawdles: 1,
        }  # fmt: skip
        (kind,) = self._random.choices(list(kinds), list(kinds.values()))
        self._tally[kind.__name__.strip("_")] += 1
        try:
            await kind()
        except (Unanswered, ConnectionClosed, TimeoutError, asyncio.TimeoutError) as error:
            self._tally["unanswered"] += 1
            sys.stderr.write(f"{kind.__name__.strip('_')}: {type(error).__name__}: {error}\n")
            await self.leave()

    async def leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _open(self) -> ClientConnection:
        if self._socket is None:
            self._socket = await connect(self._url, max_size=None)
            event = await self._until("session.created", "error")
            if event["type"] == "error":  # those who left are counted until the server notices
                if event["error"]["code"] != "too_many_sessions":
                    raise Unanswered(str(event["error"]))
                self._tally["too_many_sessions"] += 1
                await self.leave()
                await asyncio.sleep(1.0)
                return await self._open()
        return self._socket

    async def _send(self, kind: str, **fields: Any) -> None:
        await (await self._open()).send(json.dumps({"type": kind, **fields}))

    async def _until(self, *kinds: str) -> dict[str, Any]:
        assert self._socket is not None
        while True:
            event = json.loads(await asyncio.wait_for(self._socket.recv(), PATIENCE_SECONDS))
            if event["type"] in kinds and event.get("error", {}).get("code") not in BESIDE:
                return event

    async def _ask(self, text: str = "Turn on the kitchen lamp.") -> bool:
        """Whether the server took the question; where it is busy it must say so."""
        content = [{"type": "input_text", "text": text}]
        await self._send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self._send("response.create", response={"max_output_tokens": self._steps}, event_id="asked")
        event = await self._until("response.created", "error")
        if event["type"] == "response.created":
            return True
        if event["error"]["code"] != "busy" or event["error"]["event_id"] != "asked":
            raise Unanswered(str(event["error"]))
        self._tally["busy"] += 1
        await asyncio.sleep(self._random.uniform(0.05, 0.5))
        return False

    async def _text(self) -> None:
        if await self._ask():
            await self._done("completed", "incomplete")

    async def _done(self, *expected: str) -> None:
        status = (await self._until("response.done"))["response"]["status"]
        if status not in expected:
            raise Unanswered(f"a response ended {status}")

    async def _spoken(self) -> None:
        await self._send("session.update", session={"max_output_tokens": self._steps})
        await self._send("input_audio_buffer.append", audio=hum(0.5))
        event = await self._until("response.done", "error")
        if event["type"] == "error":
            if event["error"]["code"] != "busy":
                raise Unanswered(str(event["error"]))
            self._tally["busy"] += 1

    async def _cancelled(self) -> None:
        if await self._ask():
            await asyncio.sleep(self._random.uniform(0, 0.3))
            await self._send("response.cancel")
            await self._done("cancelled", "completed", "incomplete")

    async def _leaves(self) -> None:
        if await self._ask():
            await asyncio.sleep(self._random.uniform(0, 0.3))
        assert self._socket is not None
        if self._random.random() < 0.5:
            self._socket.transport.abort()
            self._socket = None
        await self.leave()

    async def _babbles(self) -> None:
        for text in self._random.sample(NONSENSE, 3):
            await (await self._open()).send(text)
            if not (await self._until("error"))["error"]["message"]:
                raise Unanswered("a refusal without a reason")

    async def _overflows(self) -> None:
        await (await self._open()).send("x" * (MESSAGE_KIB * 1024 + 1))
        event = await self._until("error")
        if event["error"]["code"] != "message_too_large":
            raise Unanswered(str(event["error"]))

    async def _bursts(self) -> None:
        socket = await self._open()
        try:
            await socket.send("x" * (HARD_FACTOR * MESSAGE_KIB * 1024 + 1))
            await self._until("error")
        except ConnectionClosed as closed:
            self._socket = None
            if closed.rcvd is None or closed.rcvd.code != 1009:
                raise
        else:
            raise Unanswered("a frame beyond all limits was taken")

    async def _dawdles(self) -> None:
        if await self._ask():
            await asyncio.sleep(2.0)
            await self._done("completed", "incomplete")


def resident_bytes(url: str) -> float:
    text = urllib.request.urlopen(f"{url}metrics", timeout=PATIENCE_SECONDS).read().decode()
    return next(
        float(line.split()[1]) for line in text.splitlines() if line.startswith("process_resident_memory_bytes")
    )


async def soak(page: str, realtime: str, given: argparse.Namespace) -> dict[str, Any]:
    tally: Counter[str] = Counter()
    clients = [Client(realtime, seed, given.steps, tally) for seed in range(given.sessions)]
    counts, memory = {"left": 0}, []

    async def work(client: Client) -> None:
        while counts["left"] > 0:
            counts["left"] -= 1
            await client.turn()
        await client.leave()

    for num_turns in (given.warm_up, given.turns):
        counts["left"] = num_turns
        await asyncio.gather(*(work(client) for client in clients))
        for _ in range(100):
            health = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(f"{page}health").read()))
            if not health["sessions"]:
                break
            await asyncio.sleep(0.1)
        memory.append(resident_bytes(page))
    last: Counter[str] = Counter()
    survivor = Client(realtime, 0, given.steps, last)
    await survivor._text()
    await survivor.leave()
    return {"tally": dict(tally), "resident_bytes": memory, "sessions_left": health["sessions"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--bundle", type=Path, help="default: nano, exported anew (needs facrt[export])")
    parser.add_argument("--turns", type=int, default=1000, help="during which memory must not grow")
    parser.add_argument(
        "--warm-up", type=int, default=2000, help="turns before; the heap has found its size after 1500"
    )
    parser.add_argument("--sessions", type=int, default=8, help="at once")
    parser.add_argument("--steps", type=int, default=15, help="backbone steps of each answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle
        if bundle is None:
            from facrt.export.pipeline import ExportRequest, export

            bundle = Path(folder) / "nano"
            export(ExportRequest("nano", bundle, verify=False))
        command = [
            sys.executable, "-m", "facrt.cli", "serve", str(bundle), "--port", "0", "--json", "--greedy",
            "--detector", "energy", "--max-sessions", str(given.sessions + 1), "--max-message-kib", str(MESSAGE_KIB),
        ]  # fmt: skip
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            addresses = json.loads(server.stdout.readline())
            report = asyncio.run(soak(addresses["page"], addresses["realtime"], given))
            alive = server.poll() is None
        finally:
            server.terminate()
            server.wait(timeout=60)
    first, last = report["resident_bytes"]
    report["checks"] = [
        check("memory after all turns / after the warm-up", last / first, "ratio", 1.05),
        check("turns that the server left unanswered", report["tally"].get("unanswered", 0), "turns", 0),
        check("sessions left when all clients are gone", report["sessions_left"], "sessions", 0),
        at_least("server alive, and answers a new session", int(alive), "yes", 1),
    ]
    asked = {"turns": given.turns, "warm_up": given.warm_up, "sessions": given.sessions, "steps": given.steps}
    finish(asked | report, given.json)


if __name__ == "__main__":
    main()
