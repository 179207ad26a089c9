"""The reference's own expression is called neither faster nor slower than the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import Audit, Measured
from tests.adversarial.case import Case, judge, reads_off_par
from tests.adversarial.cases import CONTROLS
from tests.adversarial.suite import on_cpu

if TYPE_CHECKING:
    from tests.adversarial.case import Finding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AT_PAR = [case for case in on_cpu(CONTROLS) if case.at_par]


@pytest.mark.parametrize(
    ("low", "high", "problem"),
    [
        (0.7, 0.84, ""),
        (0.7, 0.83, "0.83x at most"),
        (1.2, 1.5, ""),
        (1.21, 1.5, "at least 1.21x faster"),
    ],
)
def test_an_interval_a_fifth_off_on_either_side_is_a_problem(low: float, high: float, problem: str) -> None:
    outcome = Measured(
        kernel_ms=(1.0,),
        reference_ms=(1.0,),
        speedup=(low * high) ** 0.5,
        speedup_ci=(low, high),
        native_ms=None,
        wall_ms=1.0,
        audit=Audit(custom_kernel=False),
    )
    answer = Result(
        outcome=outcome, feedback="", device="", protocol="", boot="", seconds=Seconds(), device_s=0.0
    )
    found = judge(AT_PAR[0], answer, None).problem
    assert problem in found
    assert bool(problem) == bool(found) == reads_off_par(AT_PAR[0], answer)


@pytest.mark.parametrize("case", AT_PAR, ids=lambda case: case.id)
def test_it_is_measured_at_par(case: Case, at_par: dict[str, Finding]) -> None:
    assert at_par[case.id].problem == ""


def test_the_audit_finds_no_kernel_of_its_own(at_par: dict[str, Finding]) -> None:
    answer = at_par["plain_elementwise-elementwise"].answer
    assert isinstance(answer, Result)
    assert isinstance(answer.outcome, Measured)
    assert answer.outcome.audit.custom_kernel is False
