"""How far a call's time on a GPU depends on where its memory lies.

The device's driver places memory as it likes. On an H200 one kernel of cuDNN takes 4.5 or 6.0 ms, and nothing
differs but the place (benchmarks/results/2026-11-30-memory-placement.md). A worker keeps its memory, so all
calls of a session have one place, and the next process has another.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Protocol

from kbopt.evaluation.timing.interleaving import Steps
from kbopt.evaluation.timing.samples import Block, Times

_LEAST_MS = 1.0
"""Milliseconds of a call that is tried in other places at least: shorter ones use less memory."""
_NUM_PLACES = 4
"""Other places that are tried at most. If one place in three is slow, as measured, then these and the
session's own are all alike in one of seven sessions of one model, and in one of fifty of both."""
_FEWEST_PLACES = 2
_ENOUGH_S = 0.5
"""Seconds after which no place is begun beyond `_FEWEST_PLACES`. Calls of 40 ms take 0.16 s in a place."""
_NOTABLE = 1.05
"""Ratio of two places from which on they count as different: single calls scatter by less."""


class Moving(Protocol):
    """What is needed of `schedule.Models`."""

    def draw(self) -> Any: ...

    def move(self) -> None: ...

    def reference_block(self, draws: list[Any]) -> Block: ...

    def candidate_block(self, draws: list[Any], *, checked: int) -> Block: ...


def spread(models: Moving, known: Times) -> Steps[float]:
    """Return how many times as long a call takes in its worst place as in its best, for either model.

    It is 1 if the places make no difference, or if both models are so fast that they are not tried. `known`
    are the times of the session, which count as one place.
    """
    usual = median(known.reference_ms), median(known.kernel_ms)
    if max(usual) < _LEAST_MS:
        return 1.0
    places: list[tuple[float, ...]] = [usual]
    started = time.perf_counter()
    while len(places) <= _FEWEST_PLACES or (
        len(places) <= _NUM_PLACES and time.perf_counter() - started < _ENOUGH_S
    ):
        models.move()
        _pair(models)  # The first call there takes its memory from the driver.
        found = _pair(models)
        if _widest([*places, found]) > _NOTABLE:  # Other work on the machine makes a single call longer too.
            found = tuple(map(min, found, _pair(models)))
        places.append(found)
        yield
    ratio = _widest(places)
    return ratio if ratio > _NOTABLE else 1.0


def _pair(models: Moving) -> tuple[float, ...]:
    """Return the milliseconds of a call of the reference and of one of the candidate, by their workers."""
    draws = [models.draw()]
    blocks = models.reference_block(draws), models.candidate_block(draws, checked=0)
    return tuple(block.native_ms[0] for block in blocks)


def _widest(places: list[tuple[float, ...]]) -> float:
    return max(max(of_model) / min(of_model) for of_model in zip(*places, strict=True))
