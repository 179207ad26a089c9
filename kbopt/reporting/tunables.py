"""Which values a kernel took for what its `tune:` comments let it vary."""

from __future__ import annotations

import sys

from kbopt.core.tune_comments import parse


def tunable_values(source: str) -> tuple[tuple[str, str], ...]:
    """The name and the present value of every tunable of `source`, in order."""
    if "tune:" not in source:
        return ()
    # Thousands of candidates take the same few values: they share them.
    return tuple((sys.intern(item.name), sys.intern(item.value)) for item in parse(source))
