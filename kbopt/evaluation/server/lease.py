"""The right to use the device. It has one holder at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Lease:
    """A lock that serves threads in the order of asking, so that none waits forever."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def acquire_now(self) -> bool:
        """Take the lease if no thread holds it or waits for it. Return whether that worked."""
        with self._mutex:
            if self._held or self._waiting:
                return False
            self._held = True
            return True

    def release(self) -> None:
        """Hand the lease to the thread that has waited longest."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held and not self._waiting:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
