"""Runs cases through one evaluation service and prints the table: family, caught by, verdict."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kbopt.core.errors import InfraError, UserError
from kbopt.evaluation.client import ServiceClient
from tests.adversarial.case import Answer, Case, Device, Finding, judge, reads_off_par, seen
from tests.support.ordinary_user import UID, command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Report = Callable[[Case, Answer], None]

SECRET = "KBOPT_SUITE_SECRET"
"""An environment variable, and the beginning of what no candidate may ever see."""


def on_cpu(cases: Sequence[Case]) -> list[Case]:
    """Those of `cases` that are judged on a CPU."""
    return [case for case in cases if "cpu" in case.devices]


@asynccontextmanager
async def service(
    device: Device, state_dir: Path, *, of_ordinary_user: bool = False
) -> AsyncIterator[ServiceClient]:
    """An open service whose environment and state folder hold a secret for the candidates to look for.

    If it is `of_ordinary_user`, root starts it as another user, who has to be able to reach `state_dir`.
    """
    os.environ[SECRET] = "of-the-evaluator"
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / "kbopt-suite-secret").write_text("of-the-evaluator\n")
    python = sys.executable
    if of_ordinary_user:
        program = state_dir / "python"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command(state_dir, python))} "$@"\n')
        program.chmod(0o755)
        python = str(program)
    client = ServiceClient(device=device, state_dir=state_dir, python=python)
    info = await client.open()
    assert not of_ordinary_user or Path(f"/proc/{info.pid}").stat().st_uid == UID
    try:
        yield client
    finally:
        await client.close()
        del os.environ[SECRET]


async def find(client: ServiceClient, cases: Sequence[Case], report: Report | None = None) -> list[Finding]:
    """Evaluate all cases at once, by task, and judge each against its twin. Twins have to be among them.

    `report` is told of each case as soon as its answer is there. A control that is at par and reads
    otherwise is measured once more, in another process, as a search does before it believes in a new best.
    """
    by_task = sorted(cases, key=lambda case: (case.task, case.protocol.precision))

    async def answer(case: Case, repeat: int = 0) -> Answer:
        try:
            result: Answer = await client.evaluate(case.request(repeat))
        except (InfraError, UserError) as error:
            result = error
        if report is not None:
            report(case, result)
        return result

    answers = await asyncio.gather(*(answer(case) for case in by_task))
    by_id = {case.id: answer for case, answer in zip(by_task, answers, strict=True)}
    for case in cases:
        if reads_off_par(case, by_id[case.id]):
            by_id[case.id] = await answer(case, repeat=1)
    return [judge(case, by_id[case.id], by_id.get(f"{case.twin}-{case.task}")) for case in cases]


def table(findings: Sequence[Finding]) -> str:
    """One line a case: family, name, what caught it, verdict; problems below."""
    rows = [("family", "candidate", "came out as", "verdict")]
    rows += [
        (
            finding.case.kind,
            finding.case.id,
            seen(finding.answer),
            finding.verdict,
        )
        for finding in findings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    lines += [f"{f.verdict}: {f.case.id}: {f.problem}" for f in findings if f.problem]
    cheats = [f for f in findings if f.case.family]
    honest = [f for f in findings if f.case.kind == "honest control"]
    lines.append(
        f"{len(cheats)} cheats, {sum(bool(f.problem) for f in cheats)} holes; "
        f"{len(honest)} honest controls, {sum(bool(f.problem) for f in honest)} wronged"
    )
    return "\n".join(lines)
