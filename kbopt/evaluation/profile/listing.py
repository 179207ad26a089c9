"""The result of parsing any listing of machine code: kinds of instruction by function."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kbopt.core.profile import Share

MOST_KERNELS = 8
"""Kernels of a library that are reported, those with the most arithmetic: few sources hold more."""
MOST_KINDS = 10
"""Kinds of instruction of a kernel that are reported, the most frequent ones."""


@dataclass(slots=True)
class Function:
    """A function in a listing: counts of instructions by kind, and the widest vector in bits."""

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    vector_bits: int = 0

    @property
    def instructions(self) -> int:
        return self.kinds.total()

    @property
    def mix(self) -> tuple[Share, ...]:
        """The shares of the most frequent kinds, largest first."""
        most = self.kinds.most_common(MOST_KINDS)
        return tuple(Share(kind=kind, share=count / self.instructions) for kind, count in most)


def kind_of(opcode: str, kinds: Mapping[str, re.Pattern[str]]) -> str:
    """Return the first kind whose pattern matches the beginning of `opcode`, else `other`."""
    return next((kind for kind, pattern in kinds.items() if pattern.match(opcode)), "other")


def base_name(name: str) -> str:
    """Return a function's name alone: `softmax` for `_Z7softmaxPKfPfi` and `ns::softmax<4>(float const*)`."""
    plain = re.sub(r"<.*>", "", name.partition("(")[0].strip()) if not name.startswith("_Z") else name
    if not name.startswith("_Z"):
        return plain.rpartition("::")[2].rpartition(" ")[2] or name
    found, rest = name, re.sub(r"^_ZN?K?L?", "", name)
    while length := re.match(r"\d+", rest):
        start, size = length.end(), int(length.group())
        if not 0 < size <= len(rest) - start:
            break
        found, rest = rest[start : start + size], rest[start + size :]
    return found
