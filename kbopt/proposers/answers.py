"""From a model's answer to a source: a full rewrite in one fenced block, or search/replace edits.

An answer that gives no source is data too: `Malformed` holds the reason in the words in which the model
is asked again.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

MAX_SOURCE_CHARS = 200_000
MAX_NOTE_CHARS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """A source that parses and defines `ModelNew`; `note` is the answer's first line of prose."""

    source: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """No usable source; `reason` is a sentence for the model."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    search: str
    replace: str


_FENCE = re.compile(r"^[ ]{0,3}(?P<ticks>`{3,})[ ]*(?P<language>[\w+-]*)[^\n`]*$")
_SEARCH = re.compile(r"^<{5,9} ?SEARCH\s*$")
_DIVIDER = re.compile(r"^={5,9}\s*$")
_REPLACE = re.compile(r"^>{5,9} ?REPLACE\s*$")


def judge(text: str, finish: str, refusal: str, parent: str | None) -> NewSource | Malformed:
    """The source in an answer; one that was cut off (`finish`) may still hold a whole kernel."""
    if finish == "content_filter":
        return Malformed(reason="the service's content filter withheld the answer.")
    if refusal:
        return Malformed(reason=f"the model refused: {refusal[:MAX_NOTE_CHARS]}")
    if not text.strip():
        cut = ", cut off at the length limit before it began" if finish == "length" else ""
        return Malformed(reason=f"it is empty{cut}.")
    verdict = read_answer(text, parent)
    if isinstance(verdict, Malformed) and finish == "length":
        why = verdict.reason.rstrip(".")
        return Malformed(reason=f"it was cut off at the length limit ({why}). Answer more briefly.")
    return verdict


def read_answer(text: str, parent: str | None) -> NewSource | Malformed:
    """The source that `text` proposes; `parent` is what its edits apply to.

    Edits win where both forms occur, because an answer with edits often quotes code as well.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    has_edits = any(_SEARCH.match(line) for line in lines)
    found = _edited(lines, parent) if has_edits else _rewritten(lines)
    if isinstance(found, Malformed):
        return found
    problem = _problem(found, parent)
    if problem:
        return Malformed(reason=problem)
    return NewSource(source=found, note=_note(lines))


def _rewritten(lines: list[str]) -> str | Malformed:
    """The last fenced block that defines `ModelNew`, else the longest: models quote before they answer."""
    blocks: list[str] = []
    start: int | None = None
    ticks = 0
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if start is None and fence:
            start, ticks = number + 1, len(fence["ticks"])
        elif start is not None and fence and len(fence["ticks"]) >= ticks and not fence["language"]:
            blocks.append("\n".join(lines[start:number]) + "\n")
            start = None
    if start is not None:
        return Malformed(reason="the code block is not closed: the answer ends within the code.")
    if not blocks:
        return Malformed(
            reason="there is no fenced ```python block and there are no SEARCH/REPLACE edits in it."
        )
    defining = [block for block in blocks if "ModelNew" in block]
    return defining[-1] if defining else max(blocks, key=len)


def _edited(lines: list[str], parent: str | None) -> str | Malformed:
    if parent is None:
        return Malformed(
            reason="it has SEARCH/REPLACE edits, but there is no kernel to edit: give it in full."
        )
    edits = _edits(lines)
    if isinstance(edits, Malformed):
        return edits
    source = parent
    for number, edit in enumerate(edits, start=1):
        changed = _apply(source, edit)
        if isinstance(changed, Malformed):
            return Malformed(reason=f"edit {number} of {len(edits)} {changed.reason}")
        source = changed
    return source


def _edits(lines: list[str]) -> list[_Edit] | Malformed:
    edits: list[_Edit] = []
    search: list[str] = []
    replace: list[str] = []
    part = "outside"
    for line in lines:
        if part == "outside" and _SEARCH.match(line):
            part, search, replace = "search", [], []
        elif part == "search" and _DIVIDER.match(line):
            part = "replace"
        elif part == "replace" and _REPLACE.match(line):
            edits.append(_Edit(search="\n".join(search), replace="\n".join(replace)))
            part = "outside"
        elif part == "search":
            search.append(line)
        elif part == "replace":
            replace.append(line)
    if part != "outside":
        missing = "======= line" if part == "search" else ">>>>>>> REPLACE line"
        return Malformed(reason=f"edit {len(edits) + 1} is not finished: its {missing} is missing.")
    return edits


def _apply(source: str, edit: _Edit) -> str | Malformed:
    """`source` with the one place that matches `edit.search` replaced.

    Whole lines are compared, white space at their ends aside: that is all that models get wrong without
    meaning something else.
    """
    wanted = [line.rstrip() for line in edit.search.split("\n")]
    if not any(wanted):
        return Malformed(reason="has an empty SEARCH part: quote the lines that it replaces.")
    lines = source.split("\n")
    bare = [line.rstrip() for line in lines]
    places = [at for at in range(len(bare) - len(wanted) + 1) if bare[at : at + len(wanted)] == wanted]
    first = next(line for line in wanted if line)
    if not places:
        return Malformed(reason=f"does not match: the kernel has no such lines, beginning {first.strip()!r}.")
    if len(places) > 1:
        return Malformed(
            reason=f"matches {len(places)} places, beginning {first.strip()!r}: quote more lines around it."
        )
    at = places[0]
    new = edit.replace.split("\n") if edit.replace else []
    return "\n".join([*lines[:at], *new, *lines[at + len(wanted) :]])


def _problem(source: str, parent: str | None) -> str:
    """Why `source` is not worth an evaluation, empty where it is."""
    if len(source) > MAX_SOURCE_CHARS:
        return f"the kernel has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed."
    if parent is not None and source.strip() == parent.strip():
        return "the kernel equals the one that it should improve."
    try:
        with warnings.catch_warnings():
            # "\d" in a kernel's string is the candidate's business.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        return f"it does not parse: {error.msg} (line {error.lineno})."
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error or type(error).__name__}."
    if not any(_defines_model(node) for node in ast.walk(tree)):
        return "it defines no class ModelNew."
    return ""


def _defines_model(node: ast.AST) -> bool:
    match node:
        case ast.ClassDef(name="ModelNew"):
            return True
        case ast.Assign(targets=targets):
            return any(isinstance(target, ast.Name) and target.id == "ModelNew" for target in targets)
        case _:
            return False


def _note(lines: list[str]) -> str:
    """The first line before the code, without Markdown's marks."""
    for line in lines:
        if _FENCE.match(line) or _SEARCH.match(line):
            return ""
        words = line.strip().strip("#*_- ").strip()
        if words:
            return words if len(words) <= MAX_NOTE_CHARS else words[: MAX_NOTE_CHARS - 1] + "…"
    return ""
