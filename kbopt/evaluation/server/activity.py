"""What each request of the service is doing now, for whoever waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kbopt.core.ports import Phase


class Activity:
    """Counts the requests in each phase, and hands the counts to `say` whenever they change.

    Each request runs in one thread, and its phase is the one that this thread entered last. Threads without a
    request have none.
    """

    def __init__(self, say: Callable[[Mapping[Phase, int]], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._phases: dict[int, Phase] = {}
        self._held: set[int] = set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count this thread's request within the context. At first it waits."""
        thread = threading.get_ident()
        self._set(thread, "waiting")
        try:
            yield
        finally:
            self._set(thread, None)

    def enter(self, phase: Phase) -> None:
        """Have this thread's request be in `phase` from now on."""
        thread = threading.get_ident()
        if thread in self._phases and thread not in self._held:
            self._set(thread, phase)

    @contextmanager
    def throughout(self, phase: Phase) -> Iterator[None]:
        """Have this thread's request be in `phase` whatever it enters within the context: a baseline that is
        timed is a part of comparing.
        """
        thread = threading.get_ident()
        self.enter(phase)
        self._held.add(thread)
        try:
            yield
        finally:
            self._held.discard(thread)

    def _set(self, thread: int, phase: Phase | None) -> None:
        with self._lock:
            if self._phases.get(thread) == phase:
                return
            if phase is None:
                del self._phases[thread]
            else:
                self._phases[thread] = phase
            self._say(dict(Counter(self._phases.values())))
