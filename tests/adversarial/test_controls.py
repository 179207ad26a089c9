"""No honest source is turned away."""

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

HONEST = [case for case in on_cpu(CONTROLS) if not case.at_par]


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.id)
def test_it_is_measured(case: Case, controls: dict[str, Finding]) -> None:
    assert controls[case.id].problem == ""


def test_there_are_at_least_twenty_honest_controls() -> None:
    assert len(CONTROLS) >= 20


@pytest.mark.parametrize(("name", "custom"), [("rewritten_in_place", False), ("c_openmp", True)])
def test_the_audit_tells_a_kernel_of_ones_own_from_pytorch(
    name: str, custom: bool, controls: dict[str, Finding]
) -> None:
    answer = controls[f"{name}-elementwise"].answer
    assert isinstance(answer, Result)
    assert isinstance(answer.outcome, Measured)
    assert answer.outcome.audit.custom_kernel is custom
