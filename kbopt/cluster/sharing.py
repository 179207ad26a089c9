"""What the searches of a sweep share beside their budget: the pace of one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kbopt.cluster.running import RunningSearch


class SharedPace:
    """When the device runs dry, all searches learn. A batch that leaves it dry says so with each of its
    results; once is enough for the others.
    """

    def __init__(self) -> None:
        self._dry = False

    def observe(
        self, running: RunningSearch, waiting: int, everyone: Callable[[], Sequence[RunningSearch]]
    ) -> None:
        """A result of `running` came, and `waiting` requests are left for the device."""
        dry = waiting == 0
        for search in everyone() if dry and not self._dry else [running]:
            own = min(waiting, max(search.evaluating - 1, 0))
            search.pacing.observe(in_flight=search.search.num_in_flight, waiting=own, dry=dry)
        self._dry = dry
