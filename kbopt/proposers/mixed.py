"""Language models for new ideas, tunables for their settings."""

from __future__ import annotations

import random

from kbopt.core.ports import Proposer
from kbopt.core.proposals import Brief, Candidate, NoProposal

SEED_SHARE = 0.5
"""Of the briefs without a parent, those that a shipped seed kernel answers where the task has one.

Seeds cost nothing and are correct; a model that starts from the task alone finds other structures.
"""


class MixedProposer:
    """Hands each brief to `llm` or to `tunables`: what to do is the search's choice, by `brief.action`."""

    name = "llm+tunables"

    def __init__(self, llm: Proposer, tunables: Proposer) -> None:
        self._llm = llm
        self._tunables = tunables

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        if brief.action == "refine":
            return await self._tunables.propose(brief)
        if brief.parent is None and random.Random(brief.seed).random() < SEED_SHARE:
            seed = await self._tunables.propose(brief)
            if isinstance(seed, Candidate):
                return seed
        return await self._llm.propose(brief)
