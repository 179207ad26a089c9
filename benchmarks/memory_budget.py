"""Sixteen tasks of 300 MiB inputs at once under a limit of 6 GiB: are all judged, and is nothing killed?

    python3 benchmarks/memory_budget.py                       # root, with cgroups: a real limit
    python3 benchmarks/memory_budget.py --no-cgroup           # --memory-gib alone

In a cgroup of its own the service finds its limit by itself, and the kernel ends whoever goes beyond it.
Without one the service is told the limit. The peak is what the kernel counted in the cgroup, and what all of
the service's processes held together, shared memory counted once (PSS), looked at every 0.5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

GIB = 2**30
_LOOK_S = 0.5
"""Seconds between two looks at the processes' memory. A look walks every page of theirs and keeps them from
getting others meanwhile: every 0.2 s took a quarter of a core."""
FORWARDS = (
    "torch.tanh(x) * 2 + x",
    "torch.sigmoid(x) + x",
    "torch.relu(x) - 0.5 * x",
    "x * x + 1",
    "torch.cos(x) + x",
    "torch.clamp(x, -1, 1) + x",
    "torch.abs(x) + 0.25 * x",
    "torch.exp(-x * x)",
    "x.sum(dim=1)",
    "x.amax(dim=1)",
    "x.mean(dim=1, keepdim=True) - x",
    "x / (1 + x.abs())",
    "torch.sin(x) - x",
    "x.amin(dim=1)",
    "torch.sqrt(x * x + 1)",
    "torch.where(x > 0, x, 0.1 * x)",
)


def request_of(forward: str, rows: int, columns: int) -> EvalRequest:
    """A task of that forward, and the reference itself as its candidate."""
    head = "import torch\n\n\nclass {}(torch.nn.Module):\n"
    model = f"{head}    def forward(self, x):\n        return {forward}\n"
    inputs = (
        f"\n\ndef get_inputs():\n    return [torch.rand({rows}, {columns}) - 0.3]\n"
        "\n\ndef get_init_inputs():\n    return []\n"
    )
    protocol = EvalProtocol(trials=1, timed=10, timeout_s=300)
    task = Task(name=forward, source=model.format("Model") + inputs)
    return EvalRequest(task=task, source=model.format("ModelNew"), protocol=protocol)


class Cgroup:
    """A memory cgroup for this process and all that it starts, of either version."""

    def __init__(self, limit_bytes: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self._root = first if first.is_dir() else Path("/sys/fs/cgroup")
        self.folder = self._root / f"kbopt-benchmark-{os.getpid()}"
        self.folder.mkdir()
        self._limit, self._peak, self._events = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
            if first.is_dir()
            else ("memory.max", "memory.peak", "memory.events")
        )
        (self.folder / self._limit).write_text(str(limit_bytes))
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def peak_bytes(self) -> int:
        return int((self.folder / self._peak).read_text())

    @property
    def num_kills(self) -> int:
        lines = (self.folder / self._events).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self) -> None:
        """Leave the cgroup, which has to be empty then, and remove it."""
        (self._root / "cgroup.procs").write_text(str(os.getpid()))
        self.folder.rmdir()


class Watch:
    """The most that a service's processes have held, by a thread that looks from time to time."""

    def __init__(self, pid: int, every_s: float = _LOOK_S) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        threading.Thread(target=self._look, args=(pid,), daemon=True).start()

    def _look(self, pid: int) -> None:
        while True:
            held_kib = sum(_pss_kib(one) for one in _family(pid))
            self.peak_bytes = max(self.peak_bytes, held_kib * 1024)
            time.sleep(self._every_s)


def _family(pid: int) -> list[int]:
    found, parents = {pid}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return sorted(found)


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def judge_all(requests: list[EvalRequest], memory_gib: float | None) -> tuple[Counter[str], int]:
    """The outcomes by name, and the peak of the service's processes in bytes."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        client = ServiceClient(device="cpu", state_dir=Path(folder), memory_gib=memory_gib)
        watch = Watch((await client.open()).pid)

        async def one(request: EvalRequest) -> None:
            started = time.monotonic()
            try:
                outcome = outcome_name((await client.evaluate(request)).outcome)
            except (UserError, InfraError) as error:
                outcome = f"{type(error).__name__}: {error}"
            outcomes[outcome] += 1
            print(f"{time.monotonic() - started:7.1f} s  {request.task.name}: {outcome}", flush=True)

        await asyncio.gather(*(one(request) for request in requests))
        await client.close()
        return outcomes, watch.peak_bytes


def main() -> None:
    """Print a table of what became of the tasks, and the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit-gib", type=float, default=6.0)
    parser.add_argument("--mib", type=int, default=300, help="of one task's inputs")
    parser.add_argument("--tasks", type=int, default=len(FORWARDS))
    parser.add_argument("--no-cgroup", action="store_true")
    arguments = parser.parse_args()
    columns = 1000
    rows = arguments.mib * 2**20 // 4 // columns
    requests = [request_of(forward, rows, columns) for forward in FORWARDS[: arguments.tasks]]
    cgroup = None if arguments.no_cgroup else Cgroup(int(arguments.limit_gib * GIB))
    started = time.monotonic()
    outcomes, held_bytes = asyncio.run(judge_all(requests, arguments.limit_gib if cgroup is None else None))
    print(f"{len(requests)} tasks of {arguments.mib} MiB inputs at once, limit {arguments.limit_gib:g} GiB")
    print(f"outcomes: {dict(outcomes)} in {time.monotonic() - started:.0f} s")
    print(f"processes of the service together: at most {held_bytes / GIB:.2f} GiB")
    if cgroup is not None:
        print(f"cgroup: at most {cgroup.peak_bytes / GIB:.2f} GiB with page cache, {cgroup.num_kills} killed")
        cgroup.remove()


if __name__ == "__main__":
    main()
