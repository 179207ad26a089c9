"""Work in steps, so that the steps of several workloads can run in random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A generator that yields after each step and returns the result of all steps."""


def interleaved(
    many: Sequence[Steps[T]],
    rng: random.Random,
    during: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> list[T]:
    """Run all of `many`, each next step from one drawn at random, and return their results in the order of
    `many`.

    Each step runs within the context `during(index)`, where `index` is the position in `many`.
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
