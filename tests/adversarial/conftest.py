"""The verdicts on the suite's sources, each group's once; `pytest -s` shows the tables.

Only controls at par are called wrong by how fast they are; they have the machine to themselves. The others
are judged beside other tests: what a cheat may gain, and what an honest source loses, is no matter of noise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured
from tests.adversarial.case import Case
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS
from tests.adversarial.ends import EndFinding, find_ends
from tests.adversarial.suite import find, on_cpu, service, table

if TYPE_CHECKING:
    from tests.adversarial.case import Finding


def was_measured(finding: Finding) -> bool:
    return isinstance(finding.answer, Result) and isinstance(finding.answer.outcome, Measured)


def judged(cases: Sequence[Case], folder: Path, *, of_ordinary_user: bool = False) -> dict[str, Finding]:
    """What the evaluator said of every case on the CPU, by id."""

    async def run() -> list[Finding]:
        async with service("cpu", folder, of_ordinary_user=of_ordinary_user) as client:
            first = await find(client, cases)
            # Another tenant of the machine may wrong an honest control or end a cheat in another way than it
            # would; such a case gets a second hearing. A cheat that was measured is a hole at once.
            doubtful = [f.case for f in first if f.problem and not (f.case.family and was_measured(f))]
            twins = {f"{case.twin}-{case.task}" for case in doubtful}
            hearing = [case for case in cases if case in doubtful or case.id in twins]
            again = {finding.case.id: finding for finding in await find(client, hearing)}
            return [again.get(finding.case.id, finding) for finding in first]

    found = asyncio.run(run())
    print("\n" + table(found))
    return {finding.case.id: finding for finding in found}


def chosen(cases: Sequence[Case], request: pytest.FixtureRequest) -> list[Case]:
    """Those of `cases` whose tests run: where one failed and runs again, the others are not judged again."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    values = [value for item in tests if hasattr(item, "callspec") for value in item.callspec.params.values()]
    named = {value for value in values if isinstance(value, Case | str)}
    return [case for case in cases if case in named or case.name in named]


@pytest.fixture(scope="module")
def cheats(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Finding]:
    """Those that may be measured as no faster than their honest twins are judged with these."""
    cases = chosen(on_cpu(CHEATS), request)
    twins = {f"{case.twin}-{case.task}" for case in cases if "neutral" in case.expected}
    honest = [case for case in on_cpu(CONTROLS) if case.id in twins]
    return judged([*honest, *cases], tmp_path_factory.mktemp("cheats"))


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Finding]:
    cases = [case for case in on_cpu(CONTROLS) if not case.at_par]
    return judged(chosen(cases, request), tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def at_par(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    cases = [case for case in on_cpu(CONTROLS) if case.at_par]
    return judged(cases, tmp_path_factory.mktemp("par"))


@pytest.fixture(scope="session")
def end_findings(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, EndFinding]:
    """How every hostile source ended, and how the honest control after it was measured, by name."""

    async def run() -> list[EndFinding]:
        async with service("cpu", tmp_path_factory.mktemp("ends")) as client:
            return await find_ends(client, chosen(ENDS, request), CONTROLS[0])

    return {found.finding.case.name: found for found in asyncio.run(run())}
