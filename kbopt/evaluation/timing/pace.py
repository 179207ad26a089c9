"""For how long a GPU is kept busy while a call's kernels are queued. Pure.

The pair of events around a call then measures the device's work and not the launching. Reference and
candidate get the same time, which the reference's launching sets: a candidate that launches for longer pays
for it, see `batches`.
"""

from __future__ import annotations

_LEAST_MS, _MOST_MS = 0.4, 30.0
"""Milliseconds for which a stream is kept busy. It holds a thousand kernels and events, and PyTorch queues as
many in 5 to 12 ms."""
_BEYOND = 2.0
"""The stream is kept busy this many times as long as the reference's quickest call took to be queued. On one
machine the same launches took up to twice as long in another second:
benchmarks/results/2026-11-30-launches.md."""


class Pace:
    """Learns how long the reference's calls take to be queued, on each workload."""

    def __init__(self) -> None:
        self._quickest_ms: dict[int, float] = {}

    def learn(self, workload: int, queued_ms: float) -> None:
        """Note that a call of the reference was queued in `queued_ms` milliseconds."""
        self._quickest_ms[workload] = min(queued_ms, self._quickest_ms.get(workload, queued_ms))

    def hold_ms(self, workload: int) -> float:
        """Return the milliseconds to keep the stream busy for a call on `workload`.

        A call of more kernels than a stream holds waits while it is queued, however long that is. It gets the
        least time.
        """
        hold_ms = _BEYOND * self._quickest_ms.get(workload, 0.0)
        return hold_ms if _LEAST_MS < hold_ms <= _MOST_MS else _LEAST_MS
