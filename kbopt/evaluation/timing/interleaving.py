"""Work that is done in steps, so that the steps of several workloads can come in random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Pauses after each step, and returns what came of them all."""


def finish(steps: Steps[T]) -> T:
    """All steps one after the other."""
    return interleaved([steps], random.Random(0))[0]


def interleaved(
    many: Sequence[Steps[T]],
    rng: random.Random,
    during: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> list[T]:
    """The results of `many` in their order, whose next step is each time one of those that are left, drawn at
    random. `during` surrounds each step, and hears whose it is.
    """
    results: dict[int, T] = {}
    while left := [number for number in range(len(many)) if number not in results]:
        number = rng.choice(left)
        with during(number):
            try:
                next(many[number])
            except StopIteration as ended:
                results[number] = ended.value
    return [results[number] for number in range(len(many))]
