"""What the searches of a sweep share: a budget of evaluations, and the pace of one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kbopt.cluster.running import RunningSearch
from kbopt.core.spending import Account, is_used, next_portion


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """So many evaluations for all; `kbopt.core.spending` says who gets the next ones."""

    evaluations: int

    def next_grant(self, searches: Sequence[RunningSearch]) -> tuple[RunningSearch, int] | None:
        """Who gets how many more now; None where nobody does."""
        portion = next_portion(_accounts(searches), self.evaluations)
        return None if portion is None else (searches[portion[0]], portion[1])

    def in_vain(self, searches: Sequence[RunningSearch]) -> list[RunningSearch]:
        """Those that wait for more when all is used."""
        waiting = [running for running in searches if running.wants_more]
        return waiting if waiting and is_used(_accounts(searches), self.evaluations) else []


def _accounts(searches: Sequence[RunningSearch]) -> list[Account]:
    by_dollar = all(running.search.progress.usd > 0 for running in searches if running.wants_more)
    return [running.account(by_dollar=by_dollar) for running in searches]


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
