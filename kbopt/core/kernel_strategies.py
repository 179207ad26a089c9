"""What first briefs ask for: each another way to build the kernel, those that fit the task first. Pure.

The question is the same for every first brief, and so are most answers to it. An epsilon-net can only keep
what differs, so the difference has to be asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Bound = Literal["memory", "compute", "latency", "launch"]
"""What a kernel may be limited by; docs/profile.md says when it is which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStrategy:
    """A way to build a kernel, in words for whoever writes it. `fits` are the limits that it works against;
    one that names none suits every task, and goes first.
    """

    name: str
    text: str
    fits: tuple[Bound, ...] = ()


def next_strategy(
    strategies: Sequence[KernelStrategy], used: Counter[str], bounds: Sequence[Bound], seed: int
) -> KernelStrategy:
    """Of those asked for least often, the one that fits `bounds` best; `seed` orders what fits equally well.

    `used` counts by name how often each was asked for.
    """

    def rank(strategy: KernelStrategy) -> tuple[int, int, str]:
        places = [place for place, bound in enumerate(bounds) if bound in strategy.fits]
        fit = min(places, default=len(bounds)) if strategy.fits else -1
        return used[strategy.name], fit, hashlib.sha256(f"{seed}/{strategy.name}".encode()).hexdigest()

    return min(strategies, key=rank)
