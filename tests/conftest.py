"""Which tests need the machine to themselves: those that believe or compare times of real kernels."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
QUIET = ("adversarial", "library", "contracts", "cli/test_eval.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    quiet = tuple(str(TESTS / name) for name in QUIET)
    for item in items:
        if str(item.path).startswith(quiet):
            item.add_marker(pytest.mark.quiet)
