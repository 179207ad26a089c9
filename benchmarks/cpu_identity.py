"""Each quick task's own code judged against itself on this CPU: do the intervals hold 1?

python -m benchmarks.cpu_identity [--repeats 4] [--tasks gelu,softmax]

Each evaluation is one of new processes, as in a search; a new service for every repeat, so that the
reference also gets new ones. Prints a line for each evaluation, and how many intervals leave out 1: 1 in 20
may.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.client import ServiceClient
from kbopt.tasks import load_task

SOURCES = Path(__file__).parents[1] / "kbopt" / "tasks" / "sources" / "quick"


async def judge(names: list[str], repeats: int, folder: Path) -> list[tuple[str, Measured]]:
    """The measured evaluations, with the name of the task of each."""
    found = []
    for repeat in range(repeats):
        client = ServiceClient(device="cpu", state_dir=folder)
        await client.open()
        for name in names:
            task = load_task(f"quick/{name}")
            request = EvalRequest(
                task=task,
                source=task.equal_code,
                protocol=EvalProtocol(),
                repeat=repeat,
            )
            result = await client.evaluate(request)
            outcome = result.outcome
            spent = f"{result.seconds.check + result.seconds.time:.1f} s"
            if not isinstance(outcome, Measured):
                print(f"{name}: {outcome_name(outcome)}: {outcome.reason}, {spent}", flush=True)
                continue
            low, high = outcome.speedup_ci
            missed = "" if low <= 1 <= high else "  leaves out 1"
            ms = statistics.median(outcome.reference_ms)
            print(
                f"{name}: {outcome.speedup:.3f} [{low:.3f}, {high:.3f}], {ms:.3f} ms, {spent}{missed}",
                flush=True,
            )
            found.append((name, outcome))
        await client.close()
    return found


def main() -> None:
    """Print each evaluation and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--tasks", default=",".join(sorted(path.stem for path in SOURCES.glob("*.py"))))
    arguments = parser.parse_args()
    names = arguments.tasks.split(",")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(judge(names, arguments.repeats, Path(folder)))
    missed = [one for _, one in found if not one.speedup_ci[0] <= 1 <= one.speedup_ci[1]]
    faster = sum(one.speedup_ci[0] > 1 for one in missed)
    widths = [one.speedup_ci[1] / one.speedup_ci[0] for _, one in found]
    speedups = sorted(one.speedup for _, one in found)
    print(
        f"{len(found)} of {len(names) * arguments.repeats} measured; {len(missed)} intervals leave out 1, "
        f"{faster} of them above it; speedups {speedups[0]:.2f} to {speedups[-1]:.2f}; upper end over lower, "
        f"median {statistics.median(widths):.2f}"
    )


if __name__ == "__main__":
    main()
