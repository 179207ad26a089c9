"""Adds to a brief what a profile says: of the kernel to improve, else of the task's reference.

What limits the reference also chooses the strategies of first briefs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from kbopt.cluster.messages import SearchSpec
from kbopt.core.bottleneck import bounds_of
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import CandidateProfiled
from kbopt.core.kernel_strategies import Bound
from kbopt.core.outcomes import Measured
from kbopt.core.profile import NotProfiled, Profile, Profiled, ProfileRequest
from kbopt.core.profile_text import outcome_text, task_text, text_of
from kbopt.core.proposals import Brief, Candidate

PATIENCE_S = 60.0
"""Seconds that a brief waits for its evidence: about what a model takes to answer. The profile goes on
meanwhile, and is there for the next brief of that kernel."""


class Evidence:
    """`profile` asks the evaluator, which remembers what it was asked before."""

    def __init__(
        self, profile: Callable[[ProfileRequest], Awaitable[Profiled]], patience_s: float = PATIENCE_S
    ) -> None:
        self._profile = profile
        self._patience_s = patience_s

    async def added(self, brief: Brief, spec: SearchSpec) -> Brief:
        """The brief with its evidence; as it is where there is none to be had in time, or none is wanted."""
        if not spec.evidence or brief.action == "refine":
            return brief
        try:
            async with asyncio.timeout(self._patience_s):
                return replace(brief, evidence=await self._found(brief, spec))
        except (UserError, InfraError, TimeoutError):  # A brief is worth answering without it.
            return brief

    async def told(self, candidate: Candidate, spec: SearchSpec) -> tuple[Profiled, CandidateProfiled]:
        """What limits a candidate, for an agent that asked, and the event for the journal. A `UserError` is
        a `NotProfiled`; raises `InfraError`.
        """
        request = ProfileRequest(task=spec.task, source=candidate.source, protocol=spec.protocol)
        try:
            found = await self._profile(request)
        except UserError as error:  # such as a backend that has no profiles
            found = NotProfiled(reason=str(error))
        return found, CandidateProfiled(candidate=candidate.id, outcome=outcome_text(found))

    async def bounds(self, spec: SearchSpec) -> tuple[Bound, ...]:
        """What limits the task; empty where that cannot be had in time, or no profile is wanted."""
        if not spec.evidence:
            return ()
        try:
            async with asyncio.timeout(self._patience_s):
                found = await self._of(spec.task.equal_code, spec)
        except (UserError, InfraError, TimeoutError):
            return ()
        return bounds_of(found) if found else ()

    async def _found(self, brief: Brief, spec: SearchSpec) -> str:
        parent = brief.parent
        if parent is None:
            found = await self._of(spec.task.equal_code, spec)
            return task_text(found) if found else ""
        if not isinstance(parent.results[-1].outcome, Measured):
            return ""
        found = await self._of(parent.candidate.source, spec)
        before = next((one for one in brief.exemplars if one.candidate.id == parent.candidate.parent), None)
        compared = await self._of(before.candidate.source, spec) if before else None
        return text_of(found, compared) if found else ""

    async def _of(self, source: str, spec: SearchSpec) -> Profile | None:
        request = ProfileRequest(task=spec.task, source=source, protocol=spec.protocol)
        found = await self._profile(request)
        return found if isinstance(found, Profile) else None
