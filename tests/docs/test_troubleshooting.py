"""Troubleshooting speaks of messages that the code still gives, and misses no kind of them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.core.redaction import redact

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
ERRORS = ("UserError", "InfraError", "TaskError", "ContainerGone")

UNSEEN = (
    "answered * of * requests",  # the parts of kbopt that disagree: nothing to look up
    "answer cannot be read",
    "arrived incomplete",
    "the desk answered with a",
    "has no page",
    "is not running; open() starts it",
    "is not open; call open() first",
    "is closed; open a new one",
    "vanished from",
    "simulated machine was lost",
    "Modal knows it no longer",
    "give one of --kernel",  # usage of one command, which says all there is to say
    "says which task it is: leave out --task",
    "--out goes with --kernels",
    "--kernels * needs --task",
    "--kernel * needs --task",
    "has no 'task', and there is no --task",
    "claims are over eager PyTorch: leave --baseline",
    "no * files in",
    "cannot read *: ",
    "expected a JSON object",
    "a report needs at least one run",
    "no seed kernel for",
)
"""Messages that troubleshooting leaves out, by a part of each."""


def sources() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of kbopt's modules."""
    for path in sorted((ROOT / "kbopt").rglob("*.py")):
        if not {"sources", "kernels"} & set(path.parts):
            for node in ast.walk(ast.parse(path.read_text())):
                yield path, node


def literal(node: ast.expr) -> str:
    """The text of an expression, with `*` for what is filled in."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(literal(value) for value in node.values)
        case ast.BinOp():
            return literal(node.left) + literal(node.right)
        case ast.Call(args=[*_, last]):
            return f"*{literal(last)}"
    return "*"


def messages() -> Iterator[tuple[str, str]]:
    """Where each error of kbopt is made, and its text."""
    for path, node in sources():
        match node:
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in ERRORS:
                text = literal(first)
                if re.search(r"\w", text):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def quoted() -> list[str]:
    """The messages in the first column of the tables."""
    rows = re.findall(r"^\| (`.*?) \|", TEXT.split("## A candidate's own failures")[0], re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def fits(message: str, text: str) -> bool:
    """Whether all of `message` but its `...` is in `text`."""
    return all(part.strip(" :,") in text for part in message.split("..."))


MESSAGES = list(messages())
STRINGS = [
    literal(node)
    for _, node in sources()
    if isinstance(node, ast.JoinedStr | ast.BinOp)
    or (isinstance(node, ast.Constant) and isinstance(node.value, str))
]
KINDS = [
    f"unknown {literal(node.args[0])}"
    for _, node in sources()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "unknown_name"
]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_explained_is_given_by_the_code(message: str) -> None:
    assert any(fits(message, text) for text in STRINGS + KINDS)


@pytest.mark.parametrize(("where", "text"), MESSAGES, ids=[where for where, _ in MESSAGES])
def test_a_message_of_the_code_is_explained(where: str, text: str) -> None:
    explained = [message for message in quoted() if len(message.strip(". ")) > 5 and fits(message, text)]
    unseen = [known for known in UNSEEN if all(part in text for part in known.split("*"))]
    assert explained or unseen, f"explain {text!r} in docs/troubleshooting.md, or name it in UNSEEN"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "KBOPT_AUTH_TOKEN"])
def test_what_a_message_tells_to_set_is_not_redacted(name: str) -> None:
    told = [text.replace("export *", f"export {name}") for _, text in MESSAGES if "export *" in text]
    assert len(told) >= 2
    assert [redact(text, {}) for text in told] == told


def test_a_message_has_one_row() -> None:
    rows = re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)

    assert [row for row in dict.fromkeys(rows) if rows.count(row) > 1] == []
