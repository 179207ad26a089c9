"""How much of a search may be under way before explorers pause: being written, waiting, being evaluated.

Too little, and the device runs dry while models think; too much, and proposals are written from a memory
that is older than it needs to be: a proposal misses about as many results as there is other work in
flight. The right amount depends on latencies that nobody knows beforehand, so it is learned: up when the
evaluator ran dry, down by the candidates that waited for nothing. docs/decisions/0014 has the figures.
"""

from __future__ import annotations

import math

GROWTH = 1.25
PATIENCE = 12
"""Evaluations in a row with a candidate waiting behind them, before the limit falls."""


class InFlightLimit:
    """The limit on briefs without an answer and candidates without a result, fed by the evaluations."""

    def __init__(self, *, start: int = 8, largest: int = 256) -> None:
        self._limit, self._largest = min(start, largest), largest
        self._since_raised = 0
        self._streak = 0
        self._spare = largest

    @property
    def limit(self) -> int:
        """Explorers get a new brief while less than this is in flight."""
        return self._limit

    def observe(self, *, in_flight: int, waiting: int, dry: bool) -> None:
        """One evaluation is over, and was one of `in_flight`.

        `waiting` of the others have been written; `dry` if the evaluator has nothing to go on with, from this
        search or another.
        """
        self._since_raised += 1
        if dry:
            self._streak, self._spare = 0, self._largest
            # What a raise brings arrives a proposal's latency later: no second one until it could have.
            if in_flight >= self._limit <= self._since_raised:
                self._limit = min(math.ceil(self._limit * GROWTH), self._largest)
                self._since_raised = 0
            return
        self._streak += 1
        self._spare = min(self._spare, waiting)
        if self._streak == PATIENCE:
            self._limit = max(self._limit - self._spare, 1)
            self._streak, self._spare = 0, self._largest
