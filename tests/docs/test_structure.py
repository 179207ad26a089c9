"""What holds of the evaluator's modules, so that a stranger finds his way."""

import ast
from pathlib import Path

import pytest

from tests.docs.examples import ROOT

_MOST_LINES = 350
FOLDERS = [ROOT / "kbopt" / "evaluation", ROOT / "kbopt" / "leanbuild"]
MODULES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= _MOST_LINES


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(FOLDERS[0])], ids=name_of)
def test_what_a_function_returns_has_a_type_of_its_own(path: Path) -> None:
    """`dict[str, Any]` says nothing of what is in it."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    untyped = [
        node.name for node in functions if node.returns and ast.unparse(node.returns) == "dict[str, Any]"
    ]
    assert untyped == []
