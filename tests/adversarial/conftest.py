"""One run of the suite per session; its table is printed when it is done (`pytest -s` shows it)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kbopt.core.types import Measured, Result
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS
from tests.adversarial.ends import EndFinding, find_ends
from tests.adversarial.suite import find, service, table

if TYPE_CHECKING:
    from tests.adversarial.case import Finding


def was_measured(finding: Finding) -> bool:
    return isinstance(finding.answer, Result) and isinstance(finding.answer.outcome, Measured)


@pytest.fixture(scope="session")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """What the evaluator said of every cheat and control on the CPU, by id."""

    async def run() -> list[Finding]:
        async with service("cpu", tmp_path_factory.mktemp("adversarial")) as client:
            cases = [case for case in (*CONTROLS, *CHEATS) if "cpu" in case.devices]
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


@pytest.fixture(scope="session")
def end_findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EndFinding]:
    """How every hostile source ended, and how the honest control after it was measured, by name."""

    async def run() -> list[EndFinding]:
        async with service("cpu", tmp_path_factory.mktemp("ends")) as client:
            return await find_ends(client, ENDS, CONTROLS[0])

    return {found.finding.case.name: found for found in asyncio.run(run())}
