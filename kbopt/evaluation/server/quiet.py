"""Counts the evaluations that are running, so that profiles can wait until none is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """A thread-safe count of running evaluations."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_busy = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self._changed:
            self._num_busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_busy -= 1
                self._changed.notify_all()

    def wait(self, patience_s: float) -> bool:
        """Wait until no evaluation runs, at most `patience_s` seconds. Return whether none does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_busy, patience_s)
