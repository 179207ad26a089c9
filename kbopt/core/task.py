"""What a search is given: a task, and complete sources to start from."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass

_SEED_LINE = re.compile(r"^# seed: *(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A KernelBench problem: `source` defines `Model`, `get_inputs()` and `get_init_inputs()`.

    `family` names the kind of kernel that fits (`elementwise`, `softmax`, `matmul`, ...) and chooses the
    seed kernels; it is empty for a task that kbopt ships no seeds for.
    """

    name: str
    source: str
    family: str = ""

    @property
    def key(self) -> str:
        """Content hash of what is computed: the same for the same source under another name."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @property
    def is_path(self) -> bool:
        """Whether it was read from a file or a folder, whose path is then its name."""
        return self.name.endswith(".py") or "#" in self.name

    @property
    def short_name(self) -> str:
        """The name, of a path the last part alone: `swish` for `my/swish.py`, `norm#2` for `my/norm#2`."""
        return self.name.rpartition("/")[2].removesuffix(".py") if self.is_path else self.name

    @property
    def equal_code(self) -> str:
        """The task's own model as a candidate: an honest judge on a steady machine calls it 1.0x."""
        return f"{self.source}\n\nModelNew = Model\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A complete source that a search may start from; `name` is also in its `# seed:` line."""

    name: str
    source: str


def seed_name(source: str) -> str:
    """The seed that `source` grew from, by its `# seed: NAME` line; empty for one without it."""
    found = _SEED_LINE.search(source)
    return sys.intern(found[1]) if found else ""  # thousands of candidates grow from the same few
