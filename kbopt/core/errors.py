"""The two kinds of failure that are not data.

A kernel that is wrong, slow or hostile is data: an `Outcome` (see `kbopt.core.outcomes`). What remains is
a user who must change something, and a machine that broke.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

from kbopt.core.redaction import redact


class _Told(Exception):
    """Its message is shown, journalled and sent between processes: it holds no secret."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(str(message), os.environ))


class UserError(_Told):
    """The user must change something; the message says what was seen, what is allowed, what to do.

    The command line prints the message without a traceback and exits with 2.
    """


class InfraError(_Told):
    """A machine, container, network or model service failed. Retried in one place, never scored.

    The command line exits with 3 once retries are used up; what was measured is on disk.
    """


UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` raises for a text that is no Python; which one depends on the text and on the version."""


def place_of(error: Exception) -> str:
    """Where `ast.parse` met what is no Python, and what: `line 3: invalid syntax`. Of a null byte it names no
    line.
    """
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}" if error.lineno else error.msg
    return str(error) or type(error).__name__


MAX_NAMES_TOLD = 30


def unknown_name(kind: str, seen: str, allowed: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not in `allowed`, with the nearest ones first."""
    names = sorted(allowed, key=_natural)
    near = difflib.get_close_matches(seen, names, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    told, more = names[:MAX_NAMES_TOLD], len(names) - MAX_NAMES_TOLD
    rest = f" and {more} more" if more > 0 else ""
    return UserError(f"unknown {kind} {seen!r}. {hint}Allowed: {', '.join(told)}{rest}.")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `matmul/2` before `matmul/10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
