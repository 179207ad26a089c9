"""What each request of the service is doing now, for whoever waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kbopt.core.ports import Phase


class Activity:
    """Counts the requests in each phase, and hands the counts to `say` whenever they change.

    Each request runs in one thread, and its phase is that thread's. A phase within another one does not show:
    a baseline that is timed is a part of comparing. Threads without a request have no phase.
    """

    def __init__(self, say: Callable[[Mapping[Phase, int]], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._phases: dict[int, Phase] = {}

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count this thread's request within the context. It waits unless it is in another phase."""
        self._set("waiting")
        try:
            yield
        finally:
            self._set(None)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[Callable[[Phase], None]]:
        """Have this thread's request be in `phase` within the context, until what is yielded gets another."""
        thread = threading.get_ident()
        if self._phases.get(thread) != "waiting":
            yield lambda _: None
            return
        self._set(phase)
        try:
            yield self._set
        finally:
            self._set("waiting")

    def _set(self, phase: Phase | None) -> None:
        thread = threading.get_ident()
        with self._lock:
            if self._phases.get(thread) == phase:
                return
            if phase is None:
                del self._phases[thread]
            else:
                self._phases[thread] = phase
            self._say(dict(Counter(self._phases.values())))
