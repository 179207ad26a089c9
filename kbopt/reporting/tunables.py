"""Which values a kernel took for what its `tune:` comments let it vary."""

from __future__ import annotations

import re
import sys

from kbopt.core.tune_comments import parse

_SEED = re.compile(r"^# seed: *(\S+)", re.MULTILINE)


def seed_of(source: str) -> str:
    """The seed kernel that the source grew from, by its `# seed: NAME` line; empty without one."""
    found = _SEED.search(source)
    return sys.intern(found[1]) if found else ""


def tunable_values(source: str) -> tuple[tuple[str, str], ...]:
    """The name and the present value of every tunable of `source`, in order."""
    if "tune:" not in source:
        return ()
    # Thousands of candidates take the same few values: they share them.
    return tuple((sys.intern(item.name), sys.intern(item.value)) for item in parse(source))
