"""Runs pytest and writes how many tests have a marker that `make test` leaves out.

python scripts/deselected.py FILE OPTION...

Each line of FILE is a marker and how many of the deselected tests have it. The options are pytest's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

MARKERS = ("gpu", "patient")


class Deselected:
    """A plugin of pytest. A test that has both markers counts for the first."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Called once all tests are collected."""
        found = (next(filter(item.get_closest_marker, MARKERS), None) for item in items)
        counts = Counter(marker for marker in found if marker)
        self._file.write_text("".join(f"{marker} {count}\n" for marker, count in counts.items()))


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # as `python -m pytest` has it
    sys.exit(pytest.main(sys.argv[2:], plugins=[Deselected(Path(sys.argv[1]))]))
