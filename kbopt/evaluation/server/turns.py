"""The order in which requests get the device: requests of a task whose judge is ready go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PATIENCE_S = 10.0
"""Seconds for which later requests may pass a request. To admit another task takes the device 1 to 5 s."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    key: Hashable
    since: float


class Turns:
    """At most `most` requests have a turn at once. `is_warm(key)` says whether that key's judge is ready."""

    def __init__(
        self,
        most: int,
        is_warm: Callable[[Hashable], bool],
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._is_warm = is_warm
        self._patience_s = patience_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._num_active = 0

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Wait for a turn of a request of the task `key`, and hold it within the context."""
        mine = _Waiting(key, self._clock())
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: self._num_active < self._most and self._next() is mine)
            self._waiting.remove(mine)
            self._num_active += 1
            self._changed.notify_all()  # There may be room for more than one.
        try:
            yield
        finally:
            with self._changed:
                self._num_active -= 1
                self._changed.notify_all()

    def _next(self) -> _Waiting:
        """Return the oldest request of a warm task, or the oldest of all if it waits too long."""
        oldest = self._waiting[0]
        if self._clock() - oldest.since > self._patience_s:
            return oldest
        return next((one for one in self._waiting if self._is_warm(one.key)), oldest)
