"""`facrt serve`: the command line's side of the server."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError


def serve(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle.")],
    host: Annotated[str, typer.Option(help="Where to listen; all but this machine's need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="FACRT_API_KEY", help="What clients must show; better given as FACRT_API_KEY.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help="A web page's origin that may connect without a key, may be repeated.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate (PEM): https and wss.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    max_sessions: Annotated[int, typer.Option(help="Connections at once.")] = 8,
    max_waiting: Annotated[int, typer.Option(help="Answers that wait for the engine; more are refused.")] = 4,
    max_session_seconds: Annotated[float, typer.Option(help="Of one connection.")] = 3600.0,
    max_turn_seconds: Annotated[float, typer.Option(help="Audio of one user turn, 1 to 299.")] = 295.0,
    max_message_kib: Annotated[int, typer.Option(help="Size of one message.")] = 4096,
    max_steps: Annotated[int, typer.Option(help="Backbone steps of an answer at most (5 per second).")] = 512,
    detector: Annotated[str | None, typer.Option(help="silero or energy. Default: silero where installed.")] = None,
    system: Annotated[str | None, typer.Option(help="Of sessions without instructions. Default: the bundle's.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Argmax everywhere.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sampled mode.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Default: the CPU cores at hand.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout once it listens.")] = False,
) -> None:
    """Serve the OpenAI Realtime API, and a page to talk in a browser."""
    try:
        import uvicorn

        from .app import Access, Server
        from .desk import Desk
        from .limits import HARD_MESSAGE_FACTOR, Limits
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; serving needs: pip install 'facrt[serve]'") from None
    from ..runtime.engine import load
    from ..runtime.turns import open_detector

    limits = Limits(
        max_sessions=max_sessions, max_waiting=max_waiting, max_session_seconds=max_session_seconds,
        max_turn_seconds=max_turn_seconds, max_message_bytes=max_message_kib * 1024, max_steps=max_steps,
    )  # fmt: skip
    if api_key is not None and not re.fullmatch(r"[A-Za-z0-9._~-]+", api_key):
        raise RequestError("the API key is empty or holds more than letters, digits and . _ ~ -; choose another one")
    is_loopback = _is_loopback(host)
    if not is_loopback and api_key is None:
        raise RequestError(f"--host {host} is reachable from the network: set an API key, as FACRT_API_KEY")
    if (tls_cert is None) != (tls_key is None):
        raise RequestError("TLS needs both --tls-cert and --tls-key")
    _check_tls(tls_cert, tls_key)
    open_detector(detector)
    listening = _listen(host, port)
    desk = Desk(load(bundle, num_threads=threads), max_waiting, {"greedy": greedy, "seed": seed})
    access = Access(api_key, tuple(origin or ()), is_loopback)
    server = Server(desk, bundle.resolve().name, limits, access, detector, system)
    config = uvicorn.Config(
        server.app(), log_level="warning", ws_max_size=HARD_MESSAGE_FACTOR * limits.max_message_bytes,
        ws_per_message_deflate=False, timeout_graceful_shutdown=5, ssl_certfile=tls_cert, ssl_keyfile=tls_key,
    )  # fmt: skip
    _announce(host, listening.getsockname()[1], tls_cert is not None, json_)
    uvicorn.Server(config).run([listening])


def _check_tls(cert: Path | None, key: Path | None) -> None:
    if cert is None or key is None:
        return
    for path in (cert, key):
        if not path.is_file():
            raise RequestError(f"{path} is missing: a PEM file is needed")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise RequestError(f"{cert} and {key} are no certificate and its key in PEM ({error})") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"--host {host} --port {port} cannot be listened on ({reason}); choose others") from None


def _announce(host: str, port: int, is_tls: bool, as_json: bool) -> None:
    place, s = f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "s" if is_tls else ""
    addresses = {"page": f"http{s}://{place}/", "realtime": f"ws{s}://{place}/v1/realtime"}
    sys.stderr.write(f"talk at {addresses['page']}, or connect to {addresses['realtime']}; Ctrl-C ends it\n")
    if as_json:
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
