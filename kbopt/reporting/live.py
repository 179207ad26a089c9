"""The live page: the report's page on 127.0.0.1, which follows a journal as it grows.

Read-only: it answers GET requests under an address that holds a random token, for the names 127.0.0.1 and
localhost only, so that neither another user's process nor a web site can read it. It works at most 2 %
of the time, by waiting fifty times as long as the last update took.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kbopt.core.errors import UserError
from kbopt.core.events import Entry
from kbopt.reporting.connections import BACKLOG, Connection
from kbopt.reporting.history import History
from kbopt.reporting.page_data import CANDIDATES_SHOWN, candidate_detail, run_data
from kbopt.reporting.report import render_page
from kbopt.reporting.run import Run

Source = Callable[[int], tuple[Entry, ...]]
"""The entries with a number above the one given, in order; `UserError` when there is no journal any more."""

INTERVAL_S = 0.5
WAIT_PER_WORK = 50.0
KEEP_ALIVE_S = 15.0
BARS_SENT = 1_500
MAX_CLIENTS = 16

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATIC = ("name", "task", "settings", "config")


class LiveRun:
    """A run that is being followed. Safe to use from several threads.

    `run.entries` is not read: everything comes from `source`.
    """

    def __init__(self, run: Run, source: Source) -> None:
        self._run = run
        self._source = source
        self._history = History(texts_kept=CANDIDATES_SHOWN)
        self._lock = threading.Lock()

    def page(self) -> str:
        """The page as it stands now, as HTML."""
        with self._following() as history:
            data = {**self._data(history, after=0), "details": {}}
        return render_page({"made": time.time(), "live": True, "runs": [data], "comparison": None})

    def update(self, after: int) -> dict[str, Any] | None:
        """What changed since entry number `after`; None if nothing did."""
        with self._following() as history:
            if history.entries <= after:
                return None
            data = self._data(history, after=after)
        return {name: value for name, value in data.items() if name not in _STATIC}

    def candidate(self, candidate_id: str) -> dict[str, Any] | None:
        """The texts of one candidate; None if it is unknown or its texts are no longer held."""
        with self._following() as history:
            node = history.nodes.get(candidate_id)
            if node is None or not node.has_texts:
                return None
            return candidate_detail(self._run, history, node)

    @contextmanager
    def _following(self) -> Any:
        with self._lock:
            self._history.add_all(self._source(self._history.entries))
            yield self._history

    def _data(self, history: History, *, after: int) -> dict[str, Any]:
        shown = history.shown(CANDIDATES_SHOWN)
        return run_data(self._run, history, shown=shown, changed_after=after, max_bars=BARS_SENT)


def live_app(live: LiveRun, token: str, stopping: Callable[[], bool]) -> Starlette:
    """The ASGI application: the page at `/<token>/`, its updates and its candidates below.

    The streams of updates end soon after `stopping` says so; a server would wait for them otherwise.
    """
    clients = 0

    def known(request: Request) -> bool:
        return secrets.compare_digest(request.path_params["token"].encode(), token.encode())

    async def page(request: Request) -> Response:
        if not known(request):
            return _not_found()
        return HTMLResponse(await anyio.to_thread.run_sync(live.page), headers=_HEADERS)

    async def candidate(request: Request) -> Response:
        if not known(request):
            return _not_found()
        detail = await anyio.to_thread.run_sync(live.candidate, request.path_params["id"])
        return _not_found() if detail is None else JSONResponse(detail, headers=_HEADERS)

    async def events(request: Request) -> Response:
        nonlocal clients
        if not known(request):
            return _not_found()
        after = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not after.isdecimal():
            return PlainTextResponse(f"after={after!r} is not a number", status_code=400, headers=_HEADERS)
        if clients >= MAX_CLIENTS:
            return PlainTextResponse("too many pages follow this run", status_code=503, headers=_HEADERS)

        async def counted() -> AsyncIterator[str]:
            nonlocal clients
            clients += 1
            try:
                async for message in _messages(live, int(after), stopping):
                    yield message
            finally:
                clients -= 1

        return StreamingResponse(counted(), media_type="text/event-stream", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/{token}/", page),
            Route("/{token}/events", events),
            Route("/{token}/candidate/{id:path}", candidate),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


async def _messages(live: LiveRun, after: int, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """Server-Sent Events: an `update` whenever the journal grew, `gone` when it cannot be read."""
    quiet_since = time.monotonic()
    while not stopping():
        began = time.monotonic()
        try:
            update = await anyio.to_thread.run_sync(live.update, after)
        except UserError:
            yield "event: gone\ndata: {}\n\n"
            return
        if update is not None:
            after = update["entries"]
            body = json.dumps(update, separators=(",", ":"))
            quiet_since = time.monotonic()
            yield f"id: {after}\nevent: update\ndata: {body}\n\n"
        elif time.monotonic() - quiet_since > KEEP_ALIVE_S:
            quiet_since = time.monotonic()
            yield ": still here\n\n"
        until = time.monotonic() + max(INTERVAL_S, WAIT_PER_WORK * (time.monotonic() - began))
        while (left := until - time.monotonic()) > 0 and not stopping():
            await anyio.sleep(min(left, INTERVAL_S))


def _not_found() -> Response:
    return PlainTextResponse("not found", status_code=404, headers=_HEADERS)


class LivePage:
    """Serves a run's live page from a thread of this process, until the context ends.

    `url` is the address with its token. `port` 0 takes a free one; raises `UserError` for a taken one.
    """

    def __init__(self, run: Run, source: Source, *, port: int = 0) -> None:
        try:
            self._socket = socket.create_server(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on 127.0.0.1:{port}: {error}. Choose another --port.") from None
        token = secrets.token_urlsafe(16)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/{token}/"
        config = uvicorn.Config(
            live_app(LiveRun(run, source), token, self._is_stopping),
            http=Connection,
            ws="none",
            backlog=BACKLOG,
            log_level="error",
            access_log=False,  # it would print the token
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="kbopt-live", daemon=True)

    def serve(self) -> None:
        """Serve in this thread until `stop`, or until Ctrl-C in the main thread."""
        self._server.run(sockets=[self._socket])

    def _is_stopping(self) -> bool:
        return self._server.should_exit

    def stop(self) -> None:
        self._server.should_exit = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(timeout=10)
        self._socket.close()


def serve_live(run: Run, source: Source, *, port: int = 0, announce: Callable[[str], None]) -> None:
    """Serve the live page until Ctrl-C. `announce` is given its address before the first request."""
    page = LivePage(run, source, port=port)
    announce(page.url)
    page.serve()
