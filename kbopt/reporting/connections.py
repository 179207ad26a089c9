"""Connections of kbopt's HTTP servers: whoever reaches a port cannot use up the files of its process."""

from __future__ import annotations

import asyncio
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_IDLE = 256
"""Connections without a request under way. Whoever reaches the port can open one, and a process has 1024
files by default; the journals need some, and so do the connections whose requests are answered."""

BACKLOG = 64
"""Connections that are accepted in one round of the event loop. It takes four rounds from accepting one to
closing the one too many, so that there are at most 4 * 64 beyond `MAX_IDLE`."""


class Connection(H11Protocol):
    """Beyond `MAX_IDLE` the one that has been silent for longest is closed: a client sends its request at
    once, and one that kept its connection for later opens another.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        idle = [each for each in self.connections if isinstance(each, Connection) and each.is_idle]
        if len(idle) > MAX_IDLE:
            min(idle, key=lambda each: each._since).transport.close()

    @property
    def is_idle(self) -> bool:
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)
