"""What a search has done and spent so far: the counts behind progress lines and budgets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import Result
from kbopt.core.events import Granted
from kbopt.core.outcomes import outcome_name
from kbopt.core.settings import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A search at one moment.

    `proposals` were answered, with a source or (`proposal_failures`) with nothing. `evaluations` used the
    device, `remeasurements` among them; `cached` did not. `in_flight` are briefs without an answer and
    sources without a result. `usd` adds up the prices that are known, the rent of containers among them.
    `staleness` is how many results came in between a candidate's brief and its own result. `attempts` are
    results of kernels that an agent had judged on its way.
    """

    proposals: int
    proposal_failures: int
    evaluations: int
    cached: int
    dropped: int
    remeasurements: int
    by_outcome: Mapping[str, int]
    best_speedup: float | None
    in_flight: int
    usd: float
    tokens: int
    staleness_median: float
    staleness_max: int
    attempts: int = 0


class Tally:
    """Mutable counts; `kbopt.core.search_state` updates them from events only."""

    def __init__(self) -> None:
        self.asked = 0
        self.proposals = 0
        self.proposal_failures = 0
        self.evaluations = 0
        self.cached = 0
        self.dropped = 0
        self.remeasurements = 0
        self.attempts = 0
        self.usd = 0.0
        self.tokens = 0
        self._granted = Granted()
        self._by_outcome: dict[str, int] = {}
        self._staleness: list[int] = []

    @property
    def results(self) -> int:
        """All results told, cached ones and repeats included: the version of the memory."""
        return self.evaluations + self.cached

    def pay(self, usages: Iterable[Usage]) -> None:
        for usage in usages:
            self.usd += usage.usd or 0.0
            self.tokens += usage.prompt_tokens + usage.completion_tokens

    def pay_rent(self, rent: Rent) -> None:
        self.usd += rent.usd

    def grant(self, more: Granted) -> None:
        had = self._granted
        self._granted = Granted(evaluations=had.evaluations + more.evaluations, usd=had.usd + more.usd)

    def allowed(self, budget: Budget) -> Budget:
        """`budget` with what was granted on top of it."""
        return replace(
            budget,
            evaluations=None
            if budget.evaluations is None
            else budget.evaluations + self._granted.evaluations,
            usd=None if budget.usd is None else budget.usd + self._granted.usd,
        )

    def has_spent(self, budget: Budget) -> bool:
        """Whether the dollars of `budget` are spent."""
        return budget.usd is not None and self.usd >= budget.usd

    def count_result(self, result: Result, *, repeat: int, cached: bool, memory_version: int) -> None:
        """`memory_version` is the candidate's own: its staleness is counted once, at its first result."""
        if repeat == 0:
            self._staleness.append(self.results - memory_version)
            name = outcome_name(result.outcome)
            self._by_outcome[name] = self._by_outcome.get(name, 0) + 1
        if cached:
            self.cached += 1
        else:
            self.evaluations += 1
            self.remeasurements += repeat > 0

    def exhausted(self, budget: Budget, *, elapsed_s: float) -> str | None:
        """Why nothing more may be spent, as a sentence; None while there is budget left.

        Evaluations are not looked at: what is in flight counts there, see `Search.ask`. Nor are dollars of a
        budget that grows: the search waits for more.
        """
        if self.has_spent(budget) and not budget.grows:
            return f"spent {amount(self.usd)} of {amount(budget.usd or 0.0)} dollars"
        if budget.tokens is not None and self.tokens >= budget.tokens:
            return f"used {self.tokens} of {budget.tokens} tokens"
        if budget.minutes is not None and elapsed_s >= 60.0 * budget.minutes:
            return f"ran for {elapsed_s / 60.0:.1f} of {budget.minutes:g} minutes"
        return None

    def progress(self, *, best_speedup: float | None, in_flight: int) -> Progress:
        return Progress(
            proposals=self.proposals,
            proposal_failures=self.proposal_failures,
            evaluations=self.evaluations,
            cached=self.cached,
            dropped=self.dropped,
            remeasurements=self.remeasurements,
            by_outcome=dict(self._by_outcome),
            best_speedup=best_speedup,
            in_flight=in_flight,
            usd=self.usd,
            tokens=self.tokens,
            staleness_median=float(statistics.median(self._staleness or [0])),
            staleness_max=max(self._staleness, default=0),
            attempts=self.attempts,
        )


def amount(usd: float) -> str:
    """Dollars in cents, and below one with two significant digits: `1.50`, `0.0012`; `0.00` is nothing."""
    if usd >= 0.01 or usd <= 0:
        return f"{usd:.2f}"
    return f"{usd:.{1 - math.floor(math.log10(usd))}f}".rstrip("0")
