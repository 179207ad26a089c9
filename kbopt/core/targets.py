"""When a kernel is good enough for a search to end, by the targets that it was given. Pure."""

from __future__ import annotations

from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Trial
from kbopt.core.scoring import score_interval
from kbopt.core.settings import SearchSettings


def reached(trial: Trial, settings: SearchSettings) -> str | None:
    """Which target the measurements of `trial` lie above with confidence, as a sentence; None for none.

    How often it was measured is not looked at: a single measurement may be a lucky one.
    """
    target = settings.target_speedup
    if target is not None and score_interval(trial)[0] > target:
        return f"the best kernel is more than {target:g} times as fast as the reference"
    share = settings.target_roofline
    if share is not None and sure_share(trial) >= share:
        return f"the best kernel is at {share:.0%} of its roofline or above it"
    return None


def sure_share(trial: Trial) -> float:
    """The share of the task's floor by bytes at the slow end of the 95 % interval, the mean of the
    measurements; 0.0 where one of them failed, knows no floor or passes it.

    Not of the floor by the reference's operations: an algorithm that needs fewer of them lies far above that
    one while it is still far from done.
    """
    shares = []
    for result in trial.judged:
        outcome = result.outcome
        if not isinstance(outcome, Measured) or outcome.roofline is None or outcome.speedup <= 0:
            return 0.0
        if outcome.passes_floor:
            return 0.0
        shares.append(outcome.roofline.share * min(1.0, outcome.speedup_ci[0] / outcome.speedup))
    return sum(shares) / len(shares)
