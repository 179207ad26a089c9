"""How a sweep spends: for which search the next evaluations and dollars are worth most. Pure.

The rule of `--spend headroom`, after the task scheduler of Ansor (Zheng et al., OSDI 2020), which gives
tuning time to the part of a network whose time is expected to fall most. Every search begins with half of an
even share of the sweep's evaluations, or dollars, or both. The other half is given out in portions of ten
evaluations or of what ten cost, each time to the search whose next evaluation is expected to raise the
logarithm of its best speedup most. Of that expectation one half is the mean rise over its last twenty
evaluations, the other half that it becomes twice as fast within as many evaluations as it has had, or comes
to its roofline where that is nearer. Where every search that waits costs dollars, the rise is taken by the
dollar. A search of which so little is expected that the others will use all that is left is over.
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
LEAST_USD = 1e-6
"""Dollars below which nothing is left: far less than any evaluation costs, far more than sums are off by."""
MOST_HEADROOM = math.log(2.0)
"""What a search is trusted to gain at most, and one without a known floor to gain. Arithmetic may forbid what
bytes would allow; without this cap a task whose floor is out of reach takes what others need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the searches of a sweep have together; None for what each has of its own, or without a limit."""

    evaluations: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A search as the sweep's budget sees it.

    `evaluations` and `usd` are what it may use, or has used where that is more or it is over; an evaluation
    of it cost `usd_each` so far. One that waits lacks evaluations, dollars, or both. `gain` is what
    `expected_gain` says of its next evaluation; where nothing rises any more, that falls as `steady` over the
    evaluations that it has had.
    """

    state: Literal["going", "waiting", "over"]
    evaluations: int
    usd: float = 0.0
    usd_each: float = 0.0
    lacks_evaluations: bool = True
    lacks_usd: bool = False
    gain: float = 0.0
    steady: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What the search number `index` gets, on top of what it may use, or has spent where that is more."""

    index: int
    evaluations: int = 0
    usd: float = 0.0


def first_part(evaluations: int) -> int:
    """With how many of its even share a search begins."""
    return max(1, math.ceil(evaluations / 2))


def next_portion(accounts: Sequence[Account], shared: Shared) -> Portion | None:
    """Which search gets how much; None where nobody gets any now.

    At most half of the searches have some left at once, so that there is a choice to make, and the device has
    work; what a search left that is over goes to the others. Of equal ones the first.
    """
    going = sum(account.state == "going" for account in accounts)
    if going >= max(1, len(accounts) // 2):
        return None
    evaluations, usd = _left(accounts, shared)
    able = [
        index
        for index, account in enumerate(accounts)
        if account.state == "waiting"
        and not (account.lacks_evaluations and evaluations <= 0)
        and not (account.lacks_usd and usd <= LEAST_USD)
    ]
    if not able:
        return None
    by_dollar = _by_dollar(accounts)
    index = max(able, key=lambda one: accounts[one].gain / _cost(accounts[one], by_dollar=by_dollar))
    best = accounts[index]
    return Portion(
        index=index,
        evaluations=int(min(PORTION, evaluations)) if best.lacks_evaluations else 0,
        usd=min(PORTION * best.usd_each, usd) if best.lacks_usd else 0.0,
    )


def in_vain(accounts: Sequence[Account], shared: Shared) -> list[int]:
    """The searches that wait for more when all is given out, and nobody is left to give something back."""
    if any(account.state == "going" for account in accounts) or next_portion(accounts, shared):
        return []
    return [index for index, account in enumerate(accounts) if account.state == "waiting"]


def outbid(accounts: Sequence[Account], shared: Shared) -> list[int]:
    """The searches that wait for more while something is left, and so little is expected of them that the
    others will use all of it before as little is expected of these.

    Of the others it is supposed that nothing rises any more, so that the gain expected of their next
    evaluation falls as one over the evaluations that they have had.
    """
    evaluations, usd = _left(accounts, shared)
    by_dollar = _by_dollar(accounts)
    found = []
    for index, own in enumerate(accounts):
        if own.state != "waiting":
            continue
        worth = own.gain / _cost(own, by_dollar=by_dollar)
        others = [other for other in accounts if other.state != "over" and other is not own and other.steady]
        more = [
            max(0.0, other.steady / _cost(other, by_dollar=by_dollar) / worth - other.evaluations)
            if worth
            else math.inf
            for other in others
        ]
        cost = sum(num * other.usd_each for num, other in zip(more, others, strict=True) if other.usd_each)
        if (own.lacks_evaluations and sum(more) >= evaluations > 0) or (
            own.lacks_usd and cost >= usd > LEAST_USD
        ):
            found.append(index)
    return found


def _left(accounts: Sequence[Account], shared: Shared) -> tuple[float, float]:
    evaluations = math.inf if shared.evaluations is None else shared.evaluations
    usd = math.inf if shared.usd is None else shared.usd
    return (
        evaluations - sum(account.evaluations for account in accounts),
        usd - sum(account.usd for account in accounts),
    )


def _by_dollar(accounts: Sequence[Account]) -> bool:
    return all(account.usd_each > 0.0 for account in accounts if account.state == "waiting")


def _cost(account: Account, *, by_dollar: bool) -> float:
    return account.usd_each if by_dollar and account.usd_each else 1.0


def expected_gain(course: Sequence[float], share: float) -> float:
    """By how much the next evaluation is expected to raise ln(best speedup); infinite before the first.

    `course` has the best speedup after every evaluation, 0 where nothing worked yet; `share` is how near the
    best one is to its roofline, 0 where that is not known.
    """
    if not course:
        return math.inf
    num = len(course)
    recent = [best for best in course[-WINDOW - 1 :] if best > 0.0]
    rise = math.log(recent[-1] / recent[0]) / min(WINDOW, num) if recent else 0.0
    return 0.5 * max(rise, 0.0) + steady_gain(share) / num


def steady_gain(share: float) -> float:
    """What `expected_gain` comes to, times the number of evaluations, where nothing rises any more."""
    headroom = min(-math.log(share), MOST_HEADROOM) if 0.0 < share <= 1.0 else MOST_HEADROOM
    return 0.5 * headroom
