"""The order of the tests, and which need the machine to themselves: those that say how fast a kernel is, or
how soon one ends.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("kbopt", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("kbopt")

TESTS = Path(__file__).parent
QUIET = (
    "adversarial/test_at_par.py",
    "adversarial/test_typed_ends.py",
)

LONGEST = (
    "adversarial/test_of_ordinary_user.py",
    "adversarial/test_controls.py",
    "adversarial/test_cheats.py",
    "cluster/test_machines.py",
    "evaluation/test_verdicts.py",
    "cli/test_first_run.py",
    "backends/test_spool_drains.py",
    "leanbuild/test_inline.py",
    "cli/test_run_llm.py",
    "evaluation/test_sandbox.py",
    "cluster/test_evaluator_node.py",
    "cli/test_raise.py",
    "agents/test_agent_run.py",
    "backends/test_modal_run.py",
    "docs/test_commands.py",
    "cli/test_stops.py",
    "cli/test_formats.py",
    "backends/test_modal_backend.py",
    "reporting/test_page_in_browser.py",
    "proposers/test_seeds.py",
    "leanbuild/test_machine_code.py",
    "contracts/test_backend_contract.py",
    "cli/test_eval.py",
    "mcp/test_http.py",
    "mcp/test_stdio.py",
    "cli/test_run.py",
    "evaluation/test_memory.py",
    "cli/test_audit.py",
    "cli/test_run_secrets.py",
    "cli/test_start.py",
    "cli/test_kernelbench.py",
)
"""Those of more than a minute, longest first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    quiet = tuple(str(TESTS / name) for name in QUIET)
    for item in items:
        if str(item.path).startswith(quiet):
            item.add_marker(pytest.mark.quiet)
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
