"""The right to use the device. It has one holder at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Lease:
    """A lock that serves threads in the order of asking, so that none waits forever.

    `to_go_on` serves a request that has had the lease before, ahead of those that have not. Until it is over,
    it keeps processes and memory that others wait for. A request goes on a few times at most, so the others
    wait for a bounded number of such turns.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._begun: deque[threading.Event] = deque()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def acquire_now(self) -> bool:
        """Take the lease if no thread holds it or waits for it. Return whether that worked."""
        with self._mutex:
            if self._held or self._begun or self._waiting:
                return False
            self._held = True
            return True

    def release(self) -> None:
        """Hand the lease to the thread that has waited longest, first of those that go on."""
        with self._mutex:
            if line := self._begun or self._waiting:
                line.popleft().set()
            else:
                self._held = False

    @contextmanager
    def to_go_on(self) -> Iterator[None]:
        """Hold the lease within the context, for a request that has had it before."""
        self._enter(self._begun)
        try:
            yield
        finally:
            self.release()

    def __enter__(self) -> None:
        self._enter(self._waiting)

    def _enter(self, line: deque[threading.Event]) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            line.append(turn)
        turn.wait()

    def __exit__(self, *raised: object) -> None:
        self.release()
