"""No cheat is measured with a speed that it did not earn, and no honest source is turned away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kbopt.core.types import Measured, Result
from tests.adversarial.case import HERE, Case
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS, GPU_CASES

if TYPE_CHECKING:
    from tests.adversarial.case import Finding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ON_CPU = [case for case in (*CONTROLS, *CHEATS) if "cpu" in case.devices]


@pytest.mark.parametrize("case", ON_CPU, ids=lambda case: case.id)
def test_the_verdict_is_one_of_those_that_are_right(case: Case, findings: dict[str, Finding]) -> None:
    assert findings[case.id].problem == ""


def test_there_are_at_least_twenty_honest_controls() -> None:
    assert len(CONTROLS) >= 20


def test_every_source_in_the_folders_is_a_case_and_says_what_it_tries() -> None:
    cases = {(case.folder, case.name): case for case in (*CONTROLS, *CHEATS, *ENDS, *GPU_CASES)}
    for folder in ("cheats", "controls", "hostile", "gpu"):
        for path in (HERE / folder).glob("*.py"):
            assert cases[folder, path.stem].tries.endswith(".")


@pytest.mark.parametrize("name", ["unlaunched_kernel", "decoy_kernel"])
def test_a_kernel_that_is_not_used_does_not_count_as_one(name: str, findings: dict[str, Finding]) -> None:
    reason = findings[f"{name}-elementwise"].answer.outcome.reason
    assert "tanh" in reason
    assert "sin" in reason


@pytest.mark.parametrize(
    ("name", "custom"), [("plain_elementwise", False), ("rewritten_in_place", False), ("c_openmp", True)]
)
def test_the_audit_tells_a_kernel_of_ones_own_from_pytorch(
    name: str, custom: bool, findings: dict[str, Finding]
) -> None:
    answer = findings[f"{name}-elementwise"].answer
    assert isinstance(answer, Result)
    assert isinstance(answer.outcome, Measured)
    assert answer.outcome.audit.custom_kernel is custom
