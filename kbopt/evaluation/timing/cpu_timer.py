"""The worker's clock on a CPU. `samples` adds the time that only the judge's clock saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any


def host_timed(
    calls: Sequence[Callable[[], Any]], clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[Any], list[int]]:
    """Return the calls' results and the nanoseconds that each call took.

    `clock` is bound before the candidate is loaded, so that a candidate that patches `time` does not change
    it.
    """
    results, nanoseconds = [], []
    for call in calls:
        started = clock()
        results.append(call())
        nanoseconds.append(clock() - started)
    return results, nanoseconds
