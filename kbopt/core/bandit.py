"""Whether to propose something new or to refine what is there: by what paid off."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kbopt.core.tune_comments import parse

Action = Literal["propose", "refine"]

FORGETTING = 0.95
"""Weight of the past at each new outcome: what paid off early (a first tile size) need not later."""


def has_tunables(source: str) -> bool:
    """True if a `tune:` comment of `source` lists another value than the present one."""
    return any(tunable.alternatives for tunable in parse(source))


class Bandit:
    """Thompson sampling between two actions; an action pays off when the child beats its parent.

    Each action's chance is Beta(1 + successes, 1 + failures), with older outcomes forgotten.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Action, tuple[float, float]] = {"propose": (0.0, 0.0), "refine": (0.0, 0.0)}

    def choose(self, seed: int) -> Action:
        rng = np.random.default_rng(seed)
        draws = {action: rng.beta(1.0 + won, 1.0 + lost) for action, (won, lost) in self._outcomes.items()}
        return max(draws, key=lambda action: draws[action])

    def learn(self, action: Action, *, paid_off: bool) -> None:
        won, lost = self._outcomes[action]
        self._outcomes[action] = won * FORGETTING + paid_off, lost * FORGETTING + (not paid_off)
