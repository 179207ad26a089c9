"""Faults that nobody foresaw, as what ends a search."""

from __future__ import annotations

import traceback

from kbopt.cluster.messages import Failure


def unforeseen(what: str, error: Exception) -> Failure:
    """A fault of kbopt or of a user's proposer, to be called where it is caught."""
    line = f"{what} failed: {type(error).__name__}: {error}".splitlines()[0]
    return Failure(
        kind="infra",
        message=f"{line}. Its traceback is in the run's report, under the failures.",
        details=traceback.format_exc(),
    )
