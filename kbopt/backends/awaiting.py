"""Concurrent evaluations: their results in order, and what they do meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping

from kbopt.core.evaluations import Result
from kbopt.core.ports import Phase


async def in_order(evaluations: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results in the order of the evaluations. All are awaited before an exception is raised."""
    answers = await asyncio.gather(*evaluations, return_exceptions=True)
    results: list[Result] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results


def summed(parts: Iterable[Mapping[Phase, int]]) -> Mapping[Phase, int]:
    """Return how many requests of all `parts` are in each phase."""
    counted: Counter[Phase] = Counter()
    for phases in parts:
        counted.update(phases)
    return dict(counted)
