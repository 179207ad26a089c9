"""The clock inside a worker on a CPU. What the judge's own clock finds beyond it is added: see `samples`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any


def host_timed(
    calls: Sequence[Callable[[], Any]], clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[Any], list[int]]:
    """The calls' results, and the nanoseconds of each by a clock bound before the candidate was loaded."""
    results, nanoseconds = [], []
    for call in calls:
        started = clock()
        results.append(call())
        nanoseconds.append(clock() - started)
    return results, nanoseconds
