"""Runs the adversarial suite as a plain script, prints its table, and exits with 1 if there is a hole.

`python3 tests/adversarial/run.py [--device cpu|cuda] [NAME...]`. Needs torch and numpy; on CUDA Triton too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured
from tests.adversarial.case import Answer, Case, Device, Finding, seen
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS, GPU_CASES, GPU_ENDS
from tests.adversarial.ends import EndFinding, find_ends
from tests.adversarial.suite import find, service, table

_REASON_CHARACTERS = 300


def _report(case: Case, answer: Answer) -> None:
    spent = ""
    if isinstance(answer, Result):
        held_s = answer.seconds.check + answer.seconds.time
        spent = f", {held_s:.2f} s of check and timing"
    said = answer.outcome if isinstance(answer, Result) else answer
    reason = "" if isinstance(said, Measured) else f": {getattr(said, 'reason', said)}"[:_REASON_CHARACTERS]
    print(f"{time.strftime('%T')} {case.id}: {seen(answer)}{spent}{reason}", file=sys.stderr, flush=True)


async def run(device: Device, names: list[str]) -> tuple[list[Finding], list[EndFinding]]:
    every = [
        case for case in (*CONTROLS, *CHEATS, *GPU_CASES) if device in case.devices and case not in GPU_ENDS
    ]
    ends = [case for case in (*ENDS, *GPU_ENDS) if device in case.devices]
    if names:
        twins = {case.twin for case in every if case.name in names}
        every = [case for case in every if case.name in twins or case.name in names]
        ends = [case for case in ends if case.name in names]
    with tempfile.TemporaryDirectory() as folder:
        async with service(device, Path(folder) / "state") as client:
            findings = await find(client, every, _report)
            return findings, await find_ends(client, ends, CONTROLS[0], _report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("names", nargs="*", help="only these cases, and their honest twins")
    arguments = parser.parse_args()
    started = time.monotonic()
    findings, ends = asyncio.run(run(arguments.device, arguments.names))
    print(table([*findings, *(end.finding for end in ends)]))
    late = [f"{end.finding.case.id} took {end.seconds:.1f} s" for end in ends if end.seconds > end.limit_s]
    leftovers = [f"after {end.finding.case.id} {end.leftover}" for end in ends if end.leftover]
    print("\n".join([*late, *leftovers, f"{time.monotonic() - started:.0f} s"]))
    sys.exit(
        bool(
            late or leftovers or any(end.finding.problem for end in ends) or any(f.problem for f in findings)
        )
    )


if __name__ == "__main__":
    main()
