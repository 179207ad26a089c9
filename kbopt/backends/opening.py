"""Messages to the user while a device starts, which may take minutes on Modal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from kbopt.core.ports import Backend, BackendStatus

QUIET_S = 2.0
"""Seconds without a message: many devices are ready by then."""

REPEAT_S = 15.0
REMIND_S = 60.0
"""Seconds between messages while a device starts, and while a backend in state `waiting` waits."""
POLL_S = 0.5

Say = Callable[[str], None]


class Waiting:
    """Called with each status. Says what the device does when its state changes, and every `REPEAT_S` s."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said_state = ""
        self._said = time.monotonic() - REPEAT_S + QUIET_S

    def __call__(self, status: BackendStatus) -> None:
        now = time.monotonic()
        changed = bool(self._said_state) and status.state != self._said_state
        if changed or now - self._said >= REPEAT_S:
            self._said, self._said_state = now, status.state
            self._say(f"backend {status.state}" + (f": {status.detail}" if status.detail else ""))


class Reminder:
    """Called with each status. Says each warning once, and every `REMIND_S` s what a backend in state
    `waiting` waits for.
    """

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said = clock()
        self._warning = ""

    def __call__(self, status: BackendStatus) -> None:
        if status.warning and status.warning != self._warning:
            self._say(status.warning)
        self._warning = status.warning or self._warning
        now = self._clock()
        if status.state != "waiting":
            self._said = now
        elif now - self._said >= REMIND_S:
            self._said = now
            self._say(f"backend {status.state}: {status.detail}")


async def open_aloud(
    backend: Backend, opening: Coroutine[Any, Any, BackendStatus], say: Say
) -> BackendStatus:
    """Await `opening`, a call of the backend's `open`, and say meanwhile what the backend waits for."""
    waiting = Waiting(say)
    task = asyncio.create_task(opening)
    try:
        while not (await asyncio.wait([task], timeout=POLL_S))[0]:
            waiting(await backend.status())
    finally:
        task.cancel()  # Does nothing if the task is done.
    return await task
