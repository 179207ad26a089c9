"""The server's two transports, and its end: by EOF, Ctrl-C or SIGTERM, with everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount

from kbopt.agents.server import build
from kbopt.agents.session import Judge, Offer
from kbopt.core.errors import UserError

GRACE_S = 2
"""Whole seconds that open answers may take when the server is told to end; uvicorn cuts them off then."""

MIN_TOKEN = 16
"""Characters of a bearer token: 16 hexadecimal ones are 64 bits (NIST SP 800-63B asks for no fewer)."""

Serve = Callable[[MCPServer[Any], asyncio.Event], Awaitable[None]]


def serve_stdio(offer: Offer) -> None:
    """Serve one client on stdin and stdout until it closes stdin. Ends the process after a signal."""
    ended_by = asyncio.run(_serve(offer, _stdio))
    if ended_by:
        # A thread waits in read() on stdin and would keep the interpreter; all else has been closed.
        sys.stderr.flush()
        os._exit(128 + ended_by)


def serve_http(offer: Offer, host: str, port: int, token: str, say: Callable[[str], None]) -> None:
    """Serve any number of clients at http://HOST:PORT/mcp until a signal comes.

    Raises `UserError` for a token that is too short, or an address that cannot be listened on.
    """
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise UserError(
            f"the token has {len(token)} characters; it needs at least {MIN_TOKEN}, of printable ASCII. "
            "Make one with: openssl rand -hex 16"
        )
    listener = _listen(host, port)

    async def http(server: MCPServer[Any], stop: asyncio.Event) -> None:
        await _http(server, stop, host, token, listener)

    shown = f"[{host}]" if ":" in host else host
    say(f"kbopt mcp: http://{shown}:{listener.getsockname()[1]}/mcp")
    with contextlib.closing(listener):
        ended_by = asyncio.run(_serve(offer, http))
    if ended_by:
        sys.exit(128 + ended_by)


async def _serve(offer: Offer, serve: Serve) -> int:
    """Serve until the transport ends or a signal comes. Returns the signal's number, 0 for none."""
    stop, loop, signals = asyncio.Event(), asyncio.get_running_loop(), list[int]()

    def told(number: int) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    async with Judge(offer) as judge:
        await serve(build(judge), stop)
    return signals[0] if signals else 0


async def _stdio(server: MCPServer[Any], stop: asyncio.Event) -> None:
    serving = asyncio.create_task(server.run_stdio_async())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        await serving


async def _http(
    server: MCPServer[Any], stop: asyncio.Event, host: str, token: str, listener: socket.socket
) -> None:
    inner = server.streamable_http_app(host=host)
    app = Starlette(
        routes=[Mount("/", RequireAuthMiddleware(inner, []))],
        middleware=[Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(_OneToken(token)))],
        lifespan=lambda _: server.session_manager.run(),
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)
    http = _Server(config)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    http.should_exit = True
    await serving


class _Server(uvicorn.Server):
    """Leaves signals to `_serve`, which closes the evaluator as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OneToken:
    """Knows one token, whoever brings it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            return None
        return AccessToken(token=token, client_id="kbopt", scopes=[])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()  # before the address is said: whoever reads it may connect at once
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}. Give another --http HOST:PORT.") from None
    return listener
