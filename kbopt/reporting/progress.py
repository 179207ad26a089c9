"""How far a search is: what a progress view shows, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from kbopt.core.ports import Phase
from kbopt.core.scoring import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """One search at one moment, as far as a progress view shows it.

    `elapsed_s` counts the search's own seconds, without the time between sessions. `cached` results are those
    of a source that was measured before; `dropped` proposals were too near a known one, `failed` ones brought
    no source; `attempts` are results of kernels that agents had judged, no proposals; `in_flight` have no
    result yet, and the evaluator works on `evaluating` of them while `queue_length` wait for it. `phases` are
    what it does with its requests, of all searches: how many are in each, where that is known.
    `busy_fraction` is the share of the time in which the device ran the reference or a candidate.
    `backend_state` is one of `kbopt.core.ports.BackendState`; `backend_boot` names the container or worker,
    `backend_age_s` is its age, `backend_detail` a sentence for the user. `quiet_s` is how long ago the last
    result came. Limits are None where the budget has none.
    """

    run: str
    task: str
    algorithm: str
    elapsed_s: float
    proposals: int
    evaluations: int
    max_evaluations: int | None
    best: Standing | None
    by_outcome: Mapping[str, int]
    busy_fraction: float
    backend_state: str
    backend_boot: str = ""
    backend_age_s: float = 0.0
    backend_detail: str = ""
    cached: int = 0
    dropped: int = 0
    failed: int = 0
    attempts: int = 0
    in_flight: int = 0
    evaluating: int = 0
    queue_length: int = 0
    phases: Mapping[Phase, int] = field(default_factory=dict)
    quiet_s: float = 0.0
    usd: float = 0.0
    tokens: int = 0
    max_proposals: int | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None

    @property
    def done(self) -> int:
        """Proposals whose fate is known: evaluated, seen before, dropped or failed."""
        return sum(self.by_outcome.values()) - self.attempts + self.dropped + self.failed

    @property
    def finishing(self) -> int:
        """How many results are awaited once nothing more is asked for, else 0."""
        asked = (
            (self.evaluations + self.in_flight, self.max_evaluations),
            (self.done + self.in_flight, self.max_proposals),
            (self.usd, self.max_usd),
            (self.tokens, self.max_tokens),
            (self.elapsed_s / 60, self.max_minutes),
        )
        return self.in_flight if any(limit and used >= limit for used, limit in asked) else 0


def activity(phases: Mapping[Phase, int], most: int | None = None) -> str:
    """What the evaluator does now: `timing, building 2`; empty where that is not known.

    With `most` only so many phases, those nearest to a result. That requests wait for the device shows only
    where nothing else is done.
    """
    busy = [phase for phase in get_args(Phase) if phases.get(phase) and phase != "waiting"]
    if not busy:
        return "waiting for the device" if phases.get("waiting") else ""
    return ", ".join(f"{phase} {phases[phase]}" if phases[phase] > 1 else phase for phase in busy[:most])


def done_fraction(snapshot: ProgressSnapshot) -> float | None:
    """How much of the budget that runs out first is spent, 0 to 1; None without any limit.

    Of evaluations and proposals the results count, not what was asked for.
    """
    spent = (
        (snapshot.evaluations, snapshot.max_evaluations),
        (snapshot.done, snapshot.max_proposals),
        (snapshot.usd, snapshot.max_usd),
        (snapshot.tokens, snapshot.max_tokens),
        (snapshot.elapsed_s / 60, snapshot.max_minutes),
    )
    shares = [used / limit for used, limit in spent if limit]
    return min(1.0, max(shares)) if shares else None


def eta_s(snapshot: ProgressSnapshot) -> float | None:
    """Seconds to the end at the pace up to the last result; None when nothing tells or it takes longer."""
    done = done_fraction(snapshot)
    if not done or not snapshot.done:
        return None
    if snapshot.finishing:
        done = min(done, snapshot.done / (snapshot.done + snapshot.finishing))
    pace_s = max(0.0, snapshot.elapsed_s - snapshot.quiet_s) / done
    left_s = pace_s * (1 - done) - snapshot.quiet_s
    return left_s if left_s > 0 else None
