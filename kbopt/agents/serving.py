"""What every server of the judge does: listen, ask for the token, and end with everything that it started.

It ends when its transport does, by Ctrl-C or by SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from kbopt.agents.problems import Problem
from kbopt.agents.session import Judge, Offer
from kbopt.core.errors import UserError
from kbopt.reporting.connections import BACKLOG, Connection

SESSION_HEADER = "kbopt-session"
"""By this header of HTTP a client names its session, where its protocol has none."""

GRACE_S = 2
"""Whole seconds that open answers may take when the server is told to end; uvicorn cuts them off then."""

MIN_TOKEN = 16
"""Characters of a bearer token: 16 hexadecimal ones are 64 bits (NIST SP 800-63B asks for no fewer)."""

Serve = Callable[[Judge, asyncio.Event], Awaitable[None]]


def serve_http(
    offer: Offer,
    app: Callable[[Judge], ASGIApp],
    host: str,
    port: int,
    token: str,
    say: Callable[[str], None],
) -> None:
    """Serve what `app` makes of the judge to any number of clients until a signal comes.

    `say` is told the address. Raises `UserError` for a token that is too short, or an address that cannot
    be listened on.
    """
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise UserError(
            f"the token has {len(token)} characters; it needs at least {MIN_TOKEN}, of printable ASCII. "
            "Make one with: openssl rand -hex 16"
        )
    listener = _listen(host, port)

    async def http(judge: Judge, stop: asyncio.Event) -> None:
        await _http(OneToken(app(judge), token), stop, listener)

    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{listener.getsockname()[1]}")
    with contextlib.closing(listener):
        ended_by = asyncio.run(serve(offer, http))
    if ended_by:
        sys.exit(128 + ended_by)


async def serve(offer: Offer, transport: Serve) -> int:
    """Serve until the transport ends or a signal comes. Returns the signal's number, 0 for none."""
    stop, loop, signals = asyncio.Event(), asyncio.get_running_loop(), list[int]()

    def told(number: int) -> None:
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    async with Judge(offer) as judge:
        await transport(judge, stop)
    return signals[0] if signals else 0


class OneToken:
    """Lets those to `app` who bring the token in `Authorization: Bearer TOKEN`, and tells the others so."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            error="no_token",
            message="the bearer token is missing or is another than the server's. Send the header "
            "Authorization: Bearer TOKEN, with the value of the variable that --token-env names.",
        )
        response = problem.response(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        await response(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, token = given.partition(b" ")
        return hmac.compare_digest(kind.lower() + b" " + token.strip(), self._expected)


class _Server(uvicorn.Server):
    """Leaves signals to `serve`, which closes the evaluator as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _http(app: ASGIApp, stop: asyncio.Event, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    http = _Server(config)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    http.should_exit = True
    await serving


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
