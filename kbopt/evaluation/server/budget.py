"""Host memory as a budget: which requests may start and which wait. It only counts bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kbopt.core.errors import InfraError, UserError
from kbopt.evaluation.sandbox.memory import REMEDY, SERVICE_BYTES, Host, gib


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The bytes that a request needs: `own` until it is over, `judge` for as long as its judge lives."""

    own: int
    judge: int


class Budget:
    """Grants requests parts of `host`'s memory, in the order in which they ask, to at most `most` at once.

    A request makes its one reservation before any of its processes starts, so requests cannot wait for each
    other in a circle. `close_idle(keep)` ends the least recently used judge whose key is not in `keep` and
    returns whether there was one. Any request's thread may call it.
    """

    def __init__(self, host: Host, most: int, close_idle: Callable[[Collection[Hashable]], bool]) -> None:
        self.host = host
        self._most = most
        self._close_idle = close_idle
        self._changed = threading.Condition()
        self._waiting: deque[Reservation] = deque()
        self._active: list[Reservation] = []
        self._judges: dict[Hashable, int] = {}
        self._others_bytes = max(SERVICE_BYTES, host.used_bytes())

    @property
    def available_bytes(self) -> int:
        """Bytes for requests if nothing but the service used the host's memory."""
        return self.host.usable_bytes - SERVICE_BYTES

    @contextmanager
    def reserve(
        self, key: Hashable, what: str, need: Callable[[], Need], *, alone: bool = False
    ) -> Iterator[Reservation]:
        """Wait until `need()` is free and hold it within the context.

        `need` is called when it is this request's turn, and again by `grow`. With `alone` no other request
        has a reservation and no judge is kept. Raises UserError if the need is more than `available_bytes`,
        and InfraError if other programs hold the memory.
        """
        mine = Reservation(self, key, what, need, alone)
        with self._changed:
            self._waiting.append(mine)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting[0] is mine and self._may_start(mine))
            mine.need = mine.estimate()
            while not self._granted(mine):
                self._make_room_or_wait(mine)
        finally:
            with self._changed:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield mine
        finally:
            with self._changed:
                self._active.remove(mine)
                self._changed.notify_all()

    def forget(self, key: Hashable) -> None:
        """Note that the judge of `key` has ended."""
        with self._changed:
            self._judges.pop(key, None)
            self._changed.notify_all()

    def grow(self, mine: Reservation) -> None:
        """Raise the need of the active reservation `mine` to its estimate by now.

        Ends idle judges if memory is missing. Raises the same errors as `reserve`.
        """
        need = mine.estimate()
        mine.need = Need(own=max(mine.need.own, need.own), judge=need.judge)
        with self._changed:
            self._judges[mine.key] = need.judge
        while self._missing_bytes() > 0:
            if self._close_idle(self._keys_in_use()):
                continue
            with self._changed:
                if len(self._active) > 1:
                    return  # This happens on a GPU only, where tasks' data are not on the host.
            self._refuse(mine)

    def _may_start(self, mine: Reservation) -> bool:
        if any(active.alone for active in self._active):
            return False
        return not self._active if mine.alone else len(self._active) < self._most

    def _granted(self, mine: Reservation) -> bool:
        with self._changed:
            if not self._active:
                self._others_bytes = max(SERVICE_BYTES, self.host.used_bytes() - sum(self._judges.values()))
            if mine.alone and self._judges:
                return False
            if self._missing_bytes(mine) > 0:
                return False
            self._judges[mine.key] = max(mine.need.judge, self._judges.get(mine.key, 0))
            self._active.append(mine)
            return True

    def _make_room_or_wait(self, mine: Reservation) -> None:
        keep = self._keys_in_use() | (set() if mine.alone else {mine.key})
        if self._close_idle(keep):
            return
        with self._changed:
            if mine.alone:
                self._judges.clear()  # Those that are left have died.
            if self._active:
                self._changed.wait(1.0)
                return
            # No request is active, and no judge lives except perhaps this request's own.
            self._judges = {key: held for key, held in self._judges.items() if key == mine.key}
            if self._missing_bytes(mine) <= 0:
                return
        self._refuse(mine)

    def _keys_in_use(self) -> set[Hashable]:
        with self._changed:
            return {active.key for active in self._active}

    def _missing_bytes(self, waiting: Reservation | None = None) -> int:
        """Return by how much memory is short, with what `waiting` needs beyond a judge that it has."""
        with self._changed:
            held = sum(self._judges.values()) + sum(active.need.own for active in self._active)
            if waiting is not None:
                held += waiting.need.own + waiting.need.judge - self._judges.get(waiting.key, 0)
            return self._others_bytes + held - self.host.usable_bytes

    def _refuse(self, mine: Reservation) -> None:
        needed = mine.need.own + mine.need.judge
        figures = (
            f"judging {mine.what} needs {gib(needed)} of host memory, and it may use "
            f"{gib(self.available_bytes)} of {gib(self.host.limit_bytes)}, {self.host.source}"
        )
        if needed > self.available_bytes:
            raise UserError(f"{figures}; {REMEDY}")
        others = gib(self._others_bytes - SERVICE_BYTES)
        raise InfraError(f"{figures}; other processes use {others} of it: end them, or try again later")


class Reservation:
    """The memory of one request. `alone` says that no other request has a reservation meanwhile."""

    def __init__(
        self, budget: Budget, key: Hashable, what: str, estimate: Callable[[], Need], alone: bool
    ) -> None:
        self._budget = budget
        self.key = key
        self.what = what
        self.estimate = estimate
        self.alone = alone
        self.need = Need(own=0, judge=0)

    def grow(self) -> None:
        self._budget.grow(self)
