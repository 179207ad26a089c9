"""Concurrent evaluations with their results in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from kbopt.core.evaluations import Result


async def in_order(evaluations: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results in the order of the evaluations. All are awaited before an exception is raised."""
    answers = await asyncio.gather(*evaluations, return_exceptions=True)
    results: list[Result] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results
