"""The order in which requests come to the device: those of a task whose judge is there go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PATIENCE_S = 10.0
"""For which a request may be passed by. To admit another task takes one to five seconds of the device."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    key: Hashable
    since: float


class Turns:
    """At most `most` requests have a turn at once. `is_warm` says of a key whether its judge is there."""

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
        """A turn for a request of the task `key`, once it is next."""
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
        """The oldest, where it waits for too long; else the oldest of a warm task, if there is one."""
        oldest = self._waiting[0]
        if self._clock() - oldest.since > self._patience_s:
            return oldest
        return next((one for one in self._waiting if self._is_warm(one.key)), oldest)
