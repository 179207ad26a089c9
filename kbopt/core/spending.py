"""How a sweep spends: for which search the next evaluations are worth most. Pure.

The rule of `--spend headroom`, after the task scheduler of Ansor (Zheng et al., OSDI 2020), which gives
tuning time to the part of a network whose time is expected to fall most. Every search begins with half of an
even share of the sweep's evaluations. The other half is given out ten at a time, each time to the search
whose next evaluation is expected to raise the logarithm of its best speedup most. Of that expectation one
half is the mean rise over its last twenty evaluations, the other half that it becomes twice as fast within
as many evaluations as it has had, or comes to its roofline where that is nearer. Where every search that
waits costs dollars, the rise is taken by the dollar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Spend = Literal["evenly", "headroom"]

PORTION = 10
"""Evaluations given out at once. With 5 a simulation gains as much, and searches drain twice as often."""
WINDOW = 20
"""Evaluations over which a rise is taken for recent: in a simulation ten were too few, and told chance."""
MOST_HEADROOM = math.log(2.0)
"""What a search is trusted to gain at most, and one without a known floor to gain. Arithmetic may forbid what
bytes would allow; without this cap a task whose floor is out of reach takes what others need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A search as the sweep's budget sees it. `committed` are the evaluations that it may use, or has used
    once it is over; `worth` is the gain expected of its next one, for each dollar where it costs some.
    """

    state: Literal["going", "waiting", "over"]
    committed: int
    worth: float = 0.0


def first_part(evaluations: int) -> int:
    """With how many of its even share a search begins."""
    return max(1, math.ceil(evaluations / 2))


def next_portion(accounts: Sequence[Account], total: int) -> tuple[int, int] | None:
    """Which search gets evaluations, by its index, and how many; None where nobody gets any now.

    At most half of the searches have some left at once, so that there is a choice to make, and the device has
    work; what a search left that is over goes to the others. Of equal ones the first.
    """
    waiting = [index for index, account in enumerate(accounts) if account.state == "waiting"]
    going = sum(account.state == "going" for account in accounts)
    left = total - sum(account.committed for account in accounts)
    if not waiting or left <= 0 or going >= max(1, len(accounts) // 2):
        return None
    return max(waiting, key=lambda index: accounts[index].worth), min(PORTION, left)


def is_used(accounts: Sequence[Account], total: int) -> bool:
    """Whether nothing is left to give out, and nobody is left to give something back."""
    going = any(account.state == "going" for account in accounts)
    return not going and sum(account.committed for account in accounts) >= total


def expected_gain(course: Sequence[float], share: float) -> float:
    """By how much the next evaluation is expected to raise ln(best speedup); infinite before the first.

    `course` has the best speedup after every evaluation, 0 where nothing worked yet; `share` is how near the
    best one is to its roofline, 0 where that is not known.
    """
    if not course:
        return math.inf
    num = len(course)
    headroom = min(-math.log(share), MOST_HEADROOM) if 0.0 < share <= 1.0 else MOST_HEADROOM
    recent = [best for best in course[-WINDOW - 1 :] if best > 0.0]
    rise = math.log(recent[-1] / recent[0]) / min(WINDOW, num) if recent else 0.0
    return 0.5 * max(rise, 0.0) + 0.5 * headroom / num
