"""No cheat is measured with a speed that it did not earn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.adversarial.case import HERE, Case
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS, GPU_CASES
from tests.adversarial.suite import on_cpu

if TYPE_CHECKING:
    from tests.adversarial.case import Finding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("case", on_cpu(CHEATS), ids=lambda case: case.id)
def test_the_verdict_is_one_of_those_that_are_right(case: Case, cheats: dict[str, Finding]) -> None:
    assert cheats[case.id].problem == ""


@pytest.mark.parametrize("name", ["unlaunched_kernel", "decoy_kernel"])
def test_a_kernel_that_is_not_used_does_not_count_as_one(name: str, cheats: dict[str, Finding]) -> None:
    reason = cheats[f"{name}-elementwise"].answer.outcome.reason
    assert "tanh" in reason
    assert "sin" in reason


def test_every_cheat_behind_a_gate_names_the_workload_or_the_values_that_show_it() -> None:
    families = ("gated by shape", "gating", "honest first", "values taken for granted", "sums for the answer")
    behind = [one for one in (*CHEATS, *GPU_CASES) if one.family in families or "gated" in one.name]

    assert len(behind) > 25
    assert [one.id for one in behind if not one.shown_by and one.name != "delegate_gated"] == []


def test_every_source_in_the_folders_is_a_case_and_says_what_it_tries() -> None:
    cases = {(case.folder, case.name): case for case in (*CONTROLS, *CHEATS, *ENDS, *GPU_CASES)}
    for folder in ("cheats", "controls", "hostile", "gpu"):
        for path in (HERE / folder).glob("*.py"):
            assert cases[folder, path.stem].tries.endswith(".")
