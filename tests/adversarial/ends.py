"""Hostile sources one after the other, with an honest control after each: what does one leave behind?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured
from kbopt.evaluation.client import ServiceClient
from tests.adversarial.case import Answer, Case, Finding, judge

GRACE_S = 5.0
LEFTOVER = 1.5
"""Factor between two measurements of one control, beyond their intervals. A process that was left behind and
burns one of two cores costs more; a busy machine costs less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFinding:
    """How one hostile source ended, in how many seconds of build, check and timing, and what came after."""

    finding: Finding
    seconds: float
    control_before: Result
    control_after: Result

    @property
    def limit_s(self) -> float:
        """By when it had to have ended."""
        protocol = self.finding.case.protocol
        return protocol.timeout_s + protocol.compile_timeout_s + GRACE_S

    @property
    def leftover(self) -> str:
        """What is wrong with the control after it; empty if nothing."""
        before, after = self.control_before.outcome, self.control_after.outcome
        if not isinstance(before, Measured) or not isinstance(after, Measured):
            return f"the control was {type(before).__name__} before and {type(after).__name__} after"
        slower = after.speedup_ci[1] * LEFTOVER < before.speedup_ci[0]
        faster = before.speedup_ci[1] * LEFTOVER < after.speedup_ci[0]
        if slower or faster:
            return f"the control measured {before.speedup_ci} before and {after.speedup_ci} after"
        return ""


async def find_ends(
    client: ServiceClient,
    cases: Sequence[Case],
    control: Case,
    report: Callable[[Case, Answer], None] | None = None,
) -> list[EndFinding]:
    """One at a time: control, hostile source, control, ... `report` is told how each source ended."""
    found: list[EndFinding] = []
    before = await client.evaluate(control.request())
    for number, case in enumerate(cases, start=1):
        started = time.monotonic()
        result = await client.evaluate(case.request())
        seconds = time.monotonic() - started
        if report is not None:
            report(case, result)
        after = await client.evaluate(control.request(repeat=number))
        finding = judge(case, result, None)
        found.append(EndFinding(finding=finding, seconds=seconds, control_before=before, control_after=after))
    return found
