"""Which workloads of a format's task are shown to proposers: the formats publish all, and say of none that it
is hidden. A kernel that knows the shown ones alone is found out by the others.

Of a list of workloads the larger half is shown. GPU MODE times its benchmarks and checks its tests: there
the benchmarks are shown, and the tests are not. Of what is not shown the larger half is hidden, and the rest
held out. A workload's place is its rank by the SHA-256 of `SEED/NAME`, which no other workload changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kbopt.core.workloads import LEAST_WEIGHT, Role
from kbopt.tasks.formats.gpumode import is_test
from kbopt.tasks.formats.model import Workload

DEFAULT_SEED = 0
"""One for everybody, so that figures of two users are about the same shown workloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A workload of a format as one of a task. The mean counts by `weight`."""

    workload: Workload
    role: Role = "shown"
    weight: float = 1.0


def drawn(format_name: str, chosen: Sequence[Workload], seed: int) -> list[Part]:
    """Each with its role, the shown ones first, each role's in the order of `chosen`."""
    tests = [one for one in chosen if is_test(format_name, one)]
    are_apart = 0 < len(tests) < len(chosen)
    ranked = sorted(tests if are_apart else chosen, key=lambda one: _rank(one, seed))
    unseen = ranked if are_apart else ranked[: len(ranked) // 2]
    names = [one.name for one in unseen]
    hidden, held_out = names[: (len(names) + 1) // 2], names[(len(names) + 1) // 2 :]
    # GPU MODE times no test: a kernel has to be right on it, and its time hardly counts.
    weight = LEAST_WEIGHT if are_apart else 1.0
    return [
        *(Part(workload=one) for one in chosen if one.name not in names),
        *(Part(workload=one, role="hidden", weight=weight) for one in chosen if one.name in hidden),
        *(Part(workload=one, role="held_out", weight=weight) for one in chosen if one.name in held_out),
    ]


def _rank(workload: Workload, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{workload.name}".encode()).hexdigest()
