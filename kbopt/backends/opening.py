"""What a user hears while a device is being started, which on Modal may take minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from kbopt.core.ports import Backend, BackendStatus

QUIET_S = 2.0
"""A device that is there within this time is not worth a word."""

REPEAT_S = 15.0
REMIND_S = 60.0
POLL_S = 0.5

Say = Callable[[str], None]


class Waiting:
    """Takes each new status, and says what the device does when its state changes and now and then."""

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
    """Takes each new status, and says each `REMIND_S` what a backend waits for that serves nobody."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said = clock()

    def __call__(self, status: BackendStatus) -> None:
        now = self._clock()
        if status.state != "waiting":
            self._said = now
        elif now - self._said >= REMIND_S:
            self._said = now
            self._say(f"backend {status.state}: {status.detail}")


async def open_aloud(
    backend: Backend, opening: Coroutine[Any, Any, BackendStatus], say: Say
) -> BackendStatus:
    """What `opening` (a call of the backend's `open`) returns; says meanwhile what the backend waits for."""
    waiting = Waiting(say)
    task = asyncio.create_task(opening)
    try:
        while not (await asyncio.wait([task], timeout=POLL_S))[0]:
            waiting(await backend.status())
    finally:
        task.cancel()  # does nothing to one that is done
    return await task
