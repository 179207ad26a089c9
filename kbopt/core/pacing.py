"""How many candidates may wait for the evaluator before explorers pause.

Too few, and the device runs dry while models think; too many, and proposals are written from a memory
that is older than it needs to be. The right number depends on latencies that nobody knows beforehand,
so it is learned: up at once when the evaluator ran dry, down slowly while it never does.
"""

from __future__ import annotations

import math

GROWTH = 1.5
PATIENCE = 16
"""Evaluations in a row that found a queue before the limit shrinks by one."""


class ReadyDepth:
    """The limit on candidates that are queued or being evaluated, fed with what the evaluator saw."""

    def __init__(self, *, start: int = 2, smallest: int = 1, largest: int = 256) -> None:
        self._limit, self._smallest, self._largest = start, smallest, largest
        self._streak = 0

    @property
    def limit(self) -> int:
        """Explorers get a new brief while fewer candidates than this are queued or being evaluated."""
        return self._limit

    def observe(self, *, queue_s: float, idle: bool) -> None:
        """One evaluation is over: it had waited for `queue_s`; `idle` if none was there to follow it."""
        if idle:
            self._limit = min(math.ceil(self._limit * GROWTH), self._largest)
            self._streak = 0
        elif queue_s > 0.0:
            self._streak += 1
            if self._streak == PATIENCE:
                self._limit, self._streak = max(self._limit - 1, self._smallest), 0
