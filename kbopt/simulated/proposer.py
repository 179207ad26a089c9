"""A proposer that behaves as models do in what matters to a search: slow, local, often wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from kbopt.core.costs import Usage
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.simulated.kernels import to_point, to_source
from kbopt.simulated.landscapes import NUM_LEVELS, NUM_PARAMETERS, Point, landscape

CROSSOVER_RATE = 0.25
"""How often a parameter is taken over from an exemplar, where the brief shows one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds that an answer takes: normal, cut off below `smallest_s`."""

    mean_s: float = 0.0
    deviation_s: float = 0.0
    smallest_s: float = 0.0

    def draw(self, rng: np.random.Generator) -> float:
        return max(self.smallest_s, float(rng.normal(self.mean_s, self.deviation_s)))


class SimulatedProposer:
    """Changes one to three parameters of the parent by a few levels, or writes a mediocre first kernel.

    It depends on the brief alone, so that a resumed search gets the same answers. `failure_rate` is the
    share of briefs answered with nothing; every request costs `usd` and `tokens`.
    """

    name = "simulated"

    def __init__(
        self,
        *,
        latency: Latency | None = None,
        failure_rate: float = 0.0,
        usd: float = 0.0,
        tokens: int = 0,
    ) -> None:
        self._latency = latency or Latency()
        self._failure_rate = failure_rate
        self._usd = usd
        self._tokens = tokens

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        await asyncio.sleep(self.latency_s(brief))
        return self.answer(brief)

    def latency_s(self, brief: Brief) -> float:
        return self._latency.draw(np.random.default_rng((brief.seed, 1)))

    def answer(self, brief: Brief) -> Candidate | NoProposal:
        """The same answer without the wait."""
        rng = np.random.default_rng(brief.seed)
        usage = (Usage(model="simulated", completion_tokens=self._tokens, usd=self._usd),)
        if rng.random() < self._failure_rate:
            return NoProposal(reason="the simulated model had no idea", usage=usage)
        parent = to_point(brief.parent.candidate.source) if brief.parent else None
        if parent is None:
            point, note = landscape(brief.task.name).first_point(rng), "a first kernel"
        else:
            point, note = _changed(parent, brief, rng), "a few parameters changed"
        return Candidate(
            id=brief.id,
            source=to_source(point),
            parent=brief.parent.candidate.id if brief.parent else None,
            proposer=self.name,
            memory_version=brief.memory_version,
            note=note,
            usage=usage,
        )


def _changed(parent: Point, brief: Brief, rng: np.random.Generator) -> Point:
    levels = np.array(parent)
    shown = [point for trial in brief.exemplars if (point := to_point(trial.candidate.source))]
    for parameter in rng.choice(NUM_PARAMETERS, size=int(rng.integers(1, 4)), replace=False):
        if shown and rng.random() < CROSSOVER_RATE:
            levels[parameter] = shown[int(rng.integers(len(shown)))][parameter]
        else:
            levels[parameter] += int(rng.choice([-4, -3, -2, -1, 1, 2, 3, 4]))
    return tuple(int(level) for level in np.clip(levels, 0, NUM_LEVELS - 1))
