"""The reference's own expression is called neither faster nor slower than the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured
from tests.adversarial.case import Case
from tests.adversarial.cases import CONTROLS
from tests.adversarial.suite import on_cpu

if TYPE_CHECKING:
    from tests.adversarial.case import Finding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AT_PAR = [case for case in on_cpu(CONTROLS) if case.at_par]


@pytest.mark.parametrize("case", AT_PAR, ids=lambda case: case.id)
def test_it_is_measured_at_par(case: Case, at_par: dict[str, Finding]) -> None:
    assert at_par[case.id].problem == ""


def test_the_audit_finds_no_kernel_of_its_own(at_par: dict[str, Finding]) -> None:
    answer = at_par["plain_elementwise-elementwise"].answer
    assert isinstance(answer, Result)
    assert isinstance(answer.outcome, Measured)
    assert answer.outcome.audit.custom_kernel is False
