"""However a candidate ends, it gets a typed outcome in time, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.adversarial.cases import ENDS

if TYPE_CHECKING:
    from tests.adversarial.ends import EndFinding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = [case.name for case in ENDS]


@pytest.mark.parametrize("name", NAMES)
def test_the_outcome_is_typed(name: str, end_findings: dict[str, EndFinding]) -> None:
    assert end_findings[name].finding.problem == ""


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_within_its_limit_and_five_seconds(name: str, end_findings: dict[str, EndFinding]) -> None:
    found = end_findings[name]
    assert found.seconds < found.limit_s


@pytest.mark.parametrize("name", NAMES)
def test_the_control_after_it_measures_as_before(name: str, end_findings: dict[str, EndFinding]) -> None:
    assert end_findings[name].leftover == ""
