"""From a model's answer to a source: a full rewrite in one fenced block, or search/replace edits.

An answer that gives no source is data too: `Malformed` holds the reason in the words in which the model
is asked again.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from kbopt.core.proposals import MAX_NOTE_CHARS
from kbopt.proposers.edits import EditFault, apply_edits, is_edit
from kbopt.proposers.fences import before_code, complete_blocks, plain_blocks

MAX_SOURCE_CHARS = 200_000

_NO_MODEL = "it defines no class ModelNew."


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """A source that parses and defines `ModelNew`; `note` is the answer's first line of prose."""

    source: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """No usable source; `reason` is a sentence for the model."""

    reason: str


_TAG = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis)"
_BEGINS, _ENDS = rf"[<\u25c1]{_TAG}\b[^<>\n]*[>\u25b7]", rf"[<\u25c1]/{_TAG}[>\u25b7]"
_THOUGHT = re.compile(
    rf"^[ \t]*{_BEGINS}.*?{_ENDS}|^[ \t]*\[THINK\].*?\[/THINK\]", re.DOTALL | re.MULTILINE | re.I
)
_THOUGHT_ENDS = re.compile(rf"{_ENDS}|\[/THINK\]|<\|channel\|>final<\|message\|>", re.I)
_INVISIBLE = {**dict.fromkeys(map(ord, "\ufeff\u200b\u2060")), **dict.fromkeys(map(ord, "\xa0\u202f"), " ")}
"""Marks and spaces that models, or what carried their words, put into code, where a parser stops at them."""

_THOUGHT_BEGINS = re.compile(rf"^[ \t]*(?:{_BEGINS}|\[THINK\])", re.MULTILINE | re.I)


def judge(text: str, finish: str, refusal: str, parent: str | None) -> NewSource | Malformed:
    """The source in an answer; one that was cut off (`finish`) may still hold a whole kernel."""
    if finish == "content_filter":
        return Malformed(reason="the service's content filter withheld the answer.")
    if refusal:
        return Malformed(reason=f"the model refused: {refusal[:MAX_NOTE_CHARS]}")
    if not text.strip():
        cut = ", cut off at the length limit before it began" if finish == "length" else ""
        return Malformed(reason=f"it is empty{cut}.")
    verdict = read_answer(text, parent, finish=finish)
    if isinstance(verdict, Malformed) and finish == "length":
        why = verdict.reason.rstrip(".")
        return Malformed(reason=f"it was cut off at the length limit ({why}). Answer more briefly.")
    return verdict


def read_answer(text: str, parent: str | None, *, finish: str = "stop") -> NewSource | Malformed:
    """The source that `text` proposes; `parent` is what its edits apply to.

    Characters that nobody sees are left out only where the answer cannot be used with them.
    """
    verdict = _read(text, parent, finish)
    if isinstance(verdict, Malformed) and (plain := text.translate(_INVISIBLE)) != text:
        return _read(plain, parent, finish)
    return verdict


def _read(text: str, parent: str | None, finish: str) -> NewSource | Malformed:
    """The source of an answer as it is.

    Edits win where both forms occur and the edits fit, because an answer with edits often quotes code as
    well. What the model thought aloud is no part of its answer.
    """
    answer = _answer_itself(text.replace("\r\n", "\n").replace("\r", "\n"), finish)
    if not answer.strip():
        return Malformed(reason="there is nothing in it besides the reasoning.")
    lines = answer.split("\n")
    has_edits = any(is_edit(line) for line in lines)
    found = _rewritten(lines, parent, whole=finish == "stop")
    if has_edits and parent is not None:
        edited = _edited(lines, parent)
        if not isinstance(edited, Malformed) or isinstance(found, Malformed) or _problem(found, parent):
            found = edited
    elif has_edits and isinstance(found, Malformed):
        return Malformed(
            reason="it has SEARCH/REPLACE edits, but there is no kernel to edit: give it in full."
        )
    if isinstance(found, Malformed):
        return found
    problem = _problem(found, parent)
    if problem:
        return Malformed(reason=problem)
    return NewSource(source=found, note=_note(lines))


def _answer_itself(text: str, finish: str) -> str:
    """`text` without what the model thought aloud; some servers leave out the tag that begins it."""
    text = _THOUGHT_ENDS.split(_THOUGHT.sub("", text))[-1]
    if finish == "length" and (begun := _THOUGHT_BEGINS.search(text)):
        return text[: begun.start()]
    return text


def _rewritten(lines: list[str], parent: str | None, *, whole: bool) -> str | Malformed:
    """The last complete file: models quote before they answer.

    One that equals the parent, that returns nothing because it is a sketch, or that has its ModelNew from
    elsewhere because it shows how to use it, counts only if there is no other.
    """
    complete = complete_blocks(lines, lambda block: not _fault(block), whole=whole)
    if complete:
        changed = [block for block in complete if parent is None or block.strip() != parent.strip()]
        working = [block for block in changed if "return" in block]
        own = [block for block in working if _is_own(block)]
        return (own or working or changed or complete)[-1]
    blocks, is_open = plain_blocks(lines)
    defining = [block for block in blocks if "ModelNew" in block]
    if is_open and not defining:
        return Malformed(reason="the code block is not closed: the answer ends within the code.")
    if not blocks:
        return Malformed(
            reason="there is no fenced ```python block and there are no SEARCH/REPLACE edits in it."
        )
    return defining[-1] if defining else max(blocks, key=len)


def _edited(lines: list[str], parent: str) -> str | Malformed:
    try:
        return apply_edits(lines, parent)
    except EditFault as fault:
        return Malformed(reason=str(fault))


def _problem(source: str, parent: str | None) -> str:
    """Why `source` is not worth an evaluation, empty where it is."""
    if parent is not None and source.strip() == parent.strip():
        return "the kernel equals the one that it should improve."
    return _fault(source)


def _fault(source: str) -> str:
    """Why `source` is no complete file, empty where it is one."""
    if len(source) > MAX_SOURCE_CHARS:
        return f"the kernel has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed."
    if "ModelNew" not in source:
        return _NO_MODEL
    try:
        tree = _parsed(source)
    except SyntaxError as error:
        return f"it does not parse: {error.msg}{f' (line {error.lineno})' if error.lineno else ''}."
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error or type(error).__name__}."
    return "" if "ModelNew" in names_bound(tree) else _NO_MODEL


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # "\d" in a kernel's string is the candidate's business.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _is_own(source: str) -> bool:
    """True where ModelNew is made in `source`, which parses, and neither imported nor made of itself."""
    for node in ast.walk(_parsed(source)):
        match node:
            case ast.ClassDef(name="ModelNew") | ast.FunctionDef(name="ModelNew"):
                return True
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) if "ModelNew" in _names(
                node, ast.Store
            ) and "ModelNew" not in _names(value, ast.Load):
                return True
    return False


def _names(node: ast.AST, use: type[ast.expr_context]) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, use)}


def names_bound(module: ast.Module) -> set[str]:
    """Names that the module binds anywhere, by whatever statement."""
    names: set[str] = set()
    for node in ast.walk(module):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add(asname or name)
    return names


def _note(lines: list[str]) -> str:
    """The first line before the code, without Markdown's marks and what cannot be printed."""
    for line in lines:
        before = "" if is_edit(line) else before_code(line)
        words = line if before is None else before
        plain = "".join(char for char in words if char.isprintable()).strip().strip("#*_->: ").strip()
        if plain:
            return plain if len(plain) <= MAX_NOTE_CHARS else plain[: MAX_NOTE_CHARS - 1] + "…"
        if before is not None:
            break
    return ""
