"""The `tune:` comments of a kernel: which values could be varied, and which one this source took."""

from __future__ import annotations

import re
import sys

_ASSIGNMENT = re.compile(
    r"(?P<name>[A-Za-z_]\w*)\s*(?:[=\s]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s;,#/)]+)\s*[;,)]*\s*(?:#|//|/\*)\s*tune:"
)


_SEED = re.compile(r"^# seed: *(\S+)", re.MULTILINE)


def seed_of(source: str) -> str:
    """The seed kernel that the source grew from, by its `# seed: NAME` line; empty without one."""
    found = _SEED.search(source)
    return sys.intern(found[1]) if found else ""


def tunable_values(source: str) -> tuple[tuple[str, str], ...]:
    """The name and the chosen value of every line such as `BLOCK = 64  # tune: 32, 64`, in order.

    Reads Python and C (`#define BLOCK 64  // tune: 32, 64`); a comment without a value in front of it is
    no tunable. Where a name occurs twice the last line counts.
    """
    if "tune:" not in source:
        return ()
    lines = (line for line in source.splitlines() if "tune:" in line)
    matches = (_ASSIGNMENT.search(line) for line in lines)
    chosen = {match["name"]: match["value"] for match in matches if match}
    # Thousands of candidates take the same few values: they share them.
    return tuple((sys.intern(name), sys.intern(value)) for name, value in chosen.items())
