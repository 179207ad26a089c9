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

from tests.adversarial.case import Answer, Case, Finding, seen
from tests.adversarial.cases import CHEATS, CONTROLS, ENDS
from tests.adversarial.suite import find, service, table


def _report(case: Case, answer: Answer) -> None:
    print(f"{case.name} ({case.task}): {seen(answer)}", file=sys.stderr, flush=True)


async def run(device: str, names: list[str]) -> list[Finding]:
    every = [case for case in (*CONTROLS, *CHEATS) if device in case.devices]
    ends = [case for case in ENDS if device in case.devices]
    twins = {case.twin for case in every if not names or case.name in names}
    cases = [case for case in every if not names or case.name in names or case.name in twins]
    with tempfile.TemporaryDirectory() as folder:
        async with service(device, Path(folder) / "state") as client:
            findings = await find(client, cases, _report)
            chosen = [case for case in ends if not names or case.name in names]
            return findings + await find(client, chosen, _report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("names", nargs="*", help="only these cases, and their honest twins")
    arguments = parser.parse_args()
    started = time.monotonic()
    findings = asyncio.run(run(arguments.device, arguments.names))
    print(table(findings))
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(any(finding.problem for finding in findings))


if __name__ == "__main__":
    main()
