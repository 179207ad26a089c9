"""The same verdicts where the evaluator is an ordinary user's. The other files judge as whoever runs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.adversarial.case import Case
from tests.adversarial.cases import CHEATS, CONTROLS
from tests.adversarial.conftest import chosen, judged, was_measured
from tests.adversarial.suite import on_cpu

if TYPE_CHECKING:
    from tests.adversarial.case import Finding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="who runs the tests is an ordinary user already"),
]


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest) -> Iterator[dict[str, Finding]]:
    cases = chosen(on_cpu((*CONTROLS, *CHEATS)), request)
    twins = {f"{case.twin}-{case.task}" for case in cases if "neutral" in case.expected}
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # pytest's own folders are closed to other users.
    every = [case for case in on_cpu((*CONTROLS, *CHEATS)) if case in cases or case.id in twins]
    yield judged(every, folder, of_ordinary_user=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("case", on_cpu((*CONTROLS, *CHEATS)), ids=lambda case: case.id)
def test_the_verdict_is_one_of_those_that_are_right(case: Case, findings: dict[str, Finding]) -> None:
    finding = findings[case.id]
    if case.at_par:  # How fast it is, is told where nothing else runs.
        assert was_measured(finding)
    else:
        assert finding.problem == ""
