"""What the searches of a sweep share: a budget, of which `kbopt.core.spending` says who gets the next part,
and the pace of one device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kbopt.cluster.running import RunningSearch
from kbopt.core.spending import Account, Shared, in_vain, outbid
from kbopt.core.tally import amount

OUTBID = "more is expected of the sweep's other searches for all that is left"


def over(accounts: Sequence[Account], shared: Shared) -> list[tuple[int, str]]:
    """The searches that get no more, by their index, and why."""
    used = f"the sweep's {shared.evaluations} evaluations are used"
    spent = f"the sweep's {amount(shared.usd or 0.0)} dollars are used"
    ended = [(index, spent if accounts[index].lacks_usd else used) for index in in_vain(accounts, shared)]
    return ended + [(index, OUTBID) for index in outbid(accounts, shared)]


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
