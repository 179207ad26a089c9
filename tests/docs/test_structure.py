"""What holds of modules and of the decisions, so that a stranger finds his way."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.examples import ROOT

EVALUATION = ROOT / "kbopt" / "evaluation"
_MOST_LINES = 350
_MOST_DECISION_LINES = 28
_REPEATED = re.compile(r"^# begin: (.+)\n(?:.*\n)*?# end: \1\n", re.MULTILINE)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
MODULES = sorted((ROOT / "kbopt").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    """Blocks that seed kernels repeat, which tests hold together, are read once."""
    own = _REPEATED.sub("", path.read_text())
    assert len(own.splitlines()) <= _MOST_LINES


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(EVALUATION)], ids=name_of)
def test_what_a_function_returns_has_a_type_of_its_own(path: Path) -> None:
    """`dict[str, Any]` says nothing of what is in it."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    untyped = [
        node.name for node in functions if node.returns and ast.unparse(node.returns) == "dict[str, Any]"
    ]
    assert untyped == []


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_is_short_and_says_whether_it_holds_and_since_when(path: Path) -> None:
    """A decision that no longer holds is folded into the one that does."""
    title, _, status, *rest = path.read_text().splitlines()
    assert title.startswith(f"# {path.name[:4]} ")
    assert re.match(r"Status: holds[,.] .*\d{4}-\d{2}-\d{2}", status), status
    assert len(rest) + 3 <= _MOST_DECISION_LINES
