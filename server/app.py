"""The server's addresses: the page, the Realtime WebSocket, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .desk import Desk
from .limits import Limits
from .meters import Meters
from .outbox import Outbox
from .protocol import ClientError, error_event
from .session import Session

PAGE = Path(__file__).parent / "page.html"
KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser hands over a key: it cannot set headers
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CLOSE_SECONDS = 5.0  # for what is still to be sent when a connection ends


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect."""

    api_key: str | None = None
    origins: tuple[str, ...] = ()  # of other web pages that may, "https://robot.example"
    is_loopback: bool = True  # only this machine reaches the server

    def refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """HTTP status and reason, where the connection is refused."""
        if self.api_key is not None:
            given = _key_of(connection)
            if given is None or not hmac.compare_digest(given.encode(), self.api_key.encode()):
                return 401, "a valid API key is needed: Authorization: Bearer KEY"
            return None
        # without a key, a web page elsewhere must not be able to talk through its visitor's browser
        origin, host = connection.headers.get("origin"), connection.headers.get("host", "")
        if origin is not None and origin not in self.origins and _place(origin).netloc != host:
            return 403, f"pages of {origin[:200]} may not connect; allow them with --origin, or set an API key"
        allowed = (*LOOPBACK, *(_place(each).hostname for each in self.origins))
        if self.is_loopback and _place(f"//{host}").hostname not in allowed:
            return 403, f"host {host[:200]!r} is not this machine; allow it with --origin, or set an API key"
        return None


def _place(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # of a client's header
        return urlsplit("")


def _key_of(connection: HTTPConnection) -> str | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    offered = _protocols(connection)
    return next((name.removeprefix(KEY_PROTOCOL) for name in offered if name.startswith(KEY_PROTOCOL)), None)


def _protocols(connection: HTTPConnection) -> list[str]:
    return [name.strip() for name in connection.headers.get("sec-websocket-protocol", "").split(",")]


class Server:
    """One engine behind the addresses."""

    def __init__(
        self,
        desk: Desk,
        model: str,
        limits: Limits,
        access: Access | None = None,
        detector: str | None = None,
        system: str | None = None,
    ) -> None:
        """
        Args:
            desk: the engine.
            model: the name that clients see.
            limits, access: what is taken, and from whom; default: from this machine.
            detector: of voice, "silero" or "energy"; default: silero where it is installed.
            system: the instructions of sessions that give none; default: the bundle's.
        """
        self._desk, self._model, self._limits, self._detector = desk, model, limits, detector
        self._system = system
        self._access = access or Access()
        self._meters = Meters()
        self._meters.waiting.set_function(lambda: desk.num_waiting)
        self._open: set[Session] = set()

    def app(self) -> Starlette:
        """What an ASGI server runs."""
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/metrics", self._guarded(self._metrics)),
            Route("/v1/models", self._guarded(self._models)),
            WebSocketRoute("/v1/realtime", self._realtime),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        for session in list(self._open):
            await session.close()
        self._desk.close()

    async def _page(self, _: Request) -> Response:
        policy = "default-src 'self' blob: 'unsafe-inline'; connect-src 'self' ws: wss:; frame-ancestors 'none'"
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": policy})

    async def _health(self, _: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "model": self._model, "sessions": len(self._open), "waiting": self._desk.num_waiting}
        )

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(self._meters.text(), media_type="text/plain; version=0.0.4")

    async def _models(self, _: Request) -> Response:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "facrt"}
        return JSONResponse({"object": "list", "data": [model]})

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            refusal = self._access.refusal(request)
            return await handler(request) if refusal is None else _denial(*refusal)

        return guarded

    async def _realtime(self, websocket: WebSocket) -> None:
        refusal = self._access.refusal(websocket)
        if refusal is not None:
            self._meters.refused("unauthorized")
            await websocket.send_denial_response(_denial(*refusal))
            return
        await websocket.accept("realtime" if "realtime" in _protocols(websocket) else None)
        if len(self._open) >= self._limits.max_sessions:
            self._meters.refused("too_many_sessions")
            reason = f"{self._limits.max_sessions} sessions are open, as many as may; try again later"
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await _send_last(websocket, ClientError("too_many_sessions", reason), 1013)
            return
        outbox = Outbox(self._limits.max_unread_bytes)
        model = websocket.query_params.get("model", self._model)[:200]
        session = Session(self._desk, outbox, self._limits, self._meters, model, self._detector, self._system)
        self._open.add(session)
        self._meters.sessions.set(len(self._open))
        self._meters.sessions_total.inc()
        try:
            await self._converse(websocket, session, outbox)
        finally:
            await session.close()
            self._open.discard(session)
            self._meters.sessions.set(len(self._open))

    async def _converse(self, websocket: WebSocket, session: Session, outbox: Outbox) -> None:
        """Until the client goes, does not read, or its time is over."""
        reader = asyncio.create_task(_read(websocket, session))
        sender = asyncio.create_task(_send(websocket, outbox))
        overflow = asyncio.create_task(outbox.overflown.wait())
        tasks: Sequence[asyncio.Task] = (reader, sender, overflow)
        await asyncio.wait(tasks, timeout=self._limits.max_session_seconds, return_when=asyncio.FIRST_COMPLETED)
        over = not any(task.done() for task in tasks)
        fault = reader.exception() if reader.done() else None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            if over:
                reason = f"the session lasts {self._limits.max_session_seconds:g} s at most; connect again"
                self._meters.refused("session_expired")
                await _send_last(websocket, ClientError("session_expired", reason), 1001)
            elif fault is not None:
                sys.stderr.write("".join(traceback.format_exception(fault)))
                self._meters.refused("internal_error")
                await _send_last(websocket, ClientError("internal_error", f"{type(fault).__name__}: {fault}"), 1011)
            elif outbox.overflown.is_set():
                self._meters.refused("slow_client")
                await asyncio.wait_for(websocket.close(1008, "events are not read"), CLOSE_SECONDS)


async def _read(websocket: WebSocket, session: Session) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await session.receive(message["text"])
        else:
            session.refuse(ClientError("invalid_json", "binary messages are not supported; send JSON as text"))


async def _send(websocket: WebSocket, outbox: Outbox) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.send_text(await outbox.get())


async def _send_last(websocket: WebSocket, error: ClientError, code: int) -> None:
    async def send() -> None:
        await websocket.send_json({"event_id": "event_last", **error_event(error)})
        await websocket.close(code, error.code)

    await asyncio.wait_for(send(), CLOSE_SECONDS)


def _denial(status: int, reason: str) -> Response:
    kind = {"type": "invalid_request_error", "code": "unauthorized", "message": reason}
    return JSONResponse({"error": kind}, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)
