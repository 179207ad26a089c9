"""The order of the tests, and which need the machine to themselves: those that time real kernels, and the one
that starts whole Ray clusters in namespaces.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("kbopt", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("kbopt")

TESTS = Path(__file__).parent
QUIET = (
    "adversarial",
    "library",
    "contracts",
    "cli/test_eval.py",
    "mcp/test_stdio.py",
    "mcp/test_http.py",
    "cluster/test_machines.py",
)

LONGEST = (
    "leanbuild/test_machine_code.py",
    "cli/test_run.py",
    "docs/test_commands.py",
    "leanbuild/test_inline.py",
    "proposers/test_seeds.py",
    "backends/test_modal_backend.py",
    "reporting/test_page_in_browser.py",
    "evaluation/test_lifetime.py",
)
"""Begun first, so that no worker is left with one of them at the end. What keeps the processor busy stands
beside what waits for others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    quiet = tuple(str(TESTS / name) for name in QUIET)
    for item in items:
        if str(item.path).startswith(quiet):
            item.add_marker(pytest.mark.quiet)
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
