"""Cores of the processor that are kept for what is timed on a GPU.

A call of hundreds of small kernels takes as long as its launches, which a busy core slows down. While one
candidate is timed, others are built and other judges start.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.sandbox.children import ForkServerHandle

_KEPT = 4
"""Cores at least that are kept: for the judge, the reference's worker, the candidate, and the CUDA driver's
threads."""
_FEWEST = 12
"""Cores of a machine that keeps some. A smaller one has too few for builds."""
_TOPOLOGY = Path("/sys/devices/system/cpu")


class Cores:
    """Moves processes to the `kept` cores while they are timed, and back to the `others`.

    With no core kept it does nothing.
    """

    def __init__(self, kept: frozenset[int] = frozenset(), others: frozenset[int] = frozenset()) -> None:
        self.kept = kept
        self.others = others

    @contextmanager
    def timed(self, *pids: int) -> Iterator[None]:
        """Have these processes and their descendants run on the kept cores within the context."""
        self.move(pids, self.kept)
        try:
            yield
        finally:
            self.move(pids, self.others)

    def move(self, pids: Sequence[int], cores: frozenset[int]) -> None:
        if not self.kept:
            return
        processes = [each for pid in pids for each in (pid, *linux.descendants(pid))]
        for thread in (thread for process in processes for thread in linux.tasks(process)):
            with suppress(OSError):  # It may have ended, or belong to a user whom this one may not move.
                os.sched_setaffinity(int(thread.name), cores)


def keep_cores(fork_server: ForkServerHandle, topology: Path = _TOPOLOGY) -> Cores:
    """Keep some of this process's cores if it has enough.

    This process, the fork server, and all that they start from now on run on the others.
    """
    allowed = os.sched_getaffinity(0)
    if len(allowed) < _FEWEST:
        return Cores()
    kept = chosen_of(allowed, topology)
    cores = Cores(kept, frozenset(allowed) - kept)
    cores.move((os.getpid(), fork_server.pid), cores.others)
    return cores


def chosen_of(allowed: Collection[int], topology: Path) -> frozenset[int]:
    """Return `_KEPT` of the allowed cores or a few more, with all threads of each physical core."""
    physical = defaultdict[str, list[int]](list)
    for core in sorted(allowed):
        try:
            siblings = (topology / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(core)
        physical[siblings].append(core)
    chosen: list[int] = []
    while len(chosen) < _KEPT:
        chosen += physical.popitem()[1]
    return frozenset(chosen)
