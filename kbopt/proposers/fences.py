"""Fenced blocks in a model's answer, also where the fences are not quite Markdown's.

Models glue fences to code and to prose, leave the last one out, and write fences into docstrings. Where a
block ends is therefore decided by what the text between two fences is: a complete file or not.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_ATTEMPTS = 100
"""Pieces of one answer that are looked at: hundreds of fences are no answer."""

_OPENING = re.compile(r"^(?P<before>.*?)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_TAG = re.compile(
    r"^[ \t]*(?:<pre[^<>]*>)?<(?P<name>answer|code|file|kernel|python|solution|source)\b[^<>]*>(?P<info>.*)$",
    re.I,
)
"""What some models put around a file in place of a fence, or around the fence."""

_GLUED_CODE = re.compile(
    r"[ \t]*(?:python3?|py)?[ \t]*(?P<code>(?:import|from|class|def)\b.*|(?:@|#|\"\"\").*)"
)
_FENCE = re.compile(r"`{3,}|~{3,}|</\w+>")
_FIRST_IMPORT = re.compile(r"^(?:import [\w.]+|from [\w.]+ import )")
_ALONE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[^\n`]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    """Where a block may begin: `start` is its first whole line, `prefix` what each line may begin with."""

    start: int
    fence: str
    prefix: str = ""
    code: str = ""


def complete_blocks(lines: Sequence[str], is_complete: Callable[[str], bool], *, whole: bool) -> list[str]:
    """The blocks that `is_complete` accepts, in order and without those inside of others.

    Of the ways to end a block, a fence on a line of its own comes before one that is glued to other text,
    and that before the end of the answer, which counts only if the answer is `whole`. An answer without
    such a block may itself be one, from its first import on.
    """
    attempts = iter(range(MAX_ATTEMPTS))
    found: list[str] = []
    at = 0
    while at < len(lines) and operator.length_hint(attempts):
        opening = _opening(lines[at], at)
        block, end = _first(lines, opening, is_complete, attempts, whole) if opening else ("", at)
        if block:
            found.append(block)
        at = end + 1
    if not found:
        for start in dict.fromkeys((0, _after_prose(lines))):
            bare, _ = _first(lines, _Opening(start=start, fence="```"), is_complete, attempts, whole)
            found = found or ([bare] if bare else [])
    return found


def _after_prose(lines: Sequence[str]) -> int:
    """The number of the first import of an answer without a fence before it, else 0."""
    for number, line in enumerate(lines):
        if _FIRST_IMPORT.match(line):
            return number
        if before_code(line) is not None:
            break
    return 0


def before_code(line: str) -> str | None:
    """The words of `line` before a fenced block that may begin in it; None if none may."""
    found = _OPENING.match(line)
    return found["before"] if found else "" if _TAG.match(line) else None


def plain_blocks(lines: Sequence[str]) -> tuple[list[str], bool]:
    """The blocks as Markdown has them, and whether the last one is left open."""
    blocks: list[str] = []
    start: int | None = None
    opening = ""
    for number, line in enumerate(lines):
        found = _ALONE.match(line)
        if found is None:
            continue
        if start is None:
            start, opening = number + 1, found["fence"]
        elif found["fence"].startswith(opening) and not found["language"]:
            blocks.append("\n".join(lines[start:number]) + "\n")
            start = None
    return blocks, start is not None


def _opening(line: str, number: int) -> _Opening | None:
    if found := _OPENING.match(line):
        prefix = found["before"] if not found["before"].strip(" \t>") else ""
        fence = found["fence"]
    elif found := _TAG.match(line):
        prefix, fence = "", f"</{found['name']}>"
    else:
        return None
    glued = _GLUED_CODE.match(found["info"])
    return _Opening(start=number + 1, fence=fence, prefix=prefix, code=glued["code"] + "\n" if glued else "")


def _first(
    lines: Sequence[str],
    opening: _Opening,
    is_complete: Callable[[str], bool],
    attempts: Iterator[int],
    whole: bool,
) -> tuple[str, int]:
    """The first complete block from `opening` on and its last line's number, else "" and the opening's."""
    for (end, last), _ in zip(_ends(lines, opening, whole), attempts, strict=False):
        inside = [*lines[opening.start : end], *([last] if last else [])]
        block = opening.code + "".join(f"{_without(opening.prefix, line)}\n" for line in inside)
        if is_complete(block):
            return block, end
    return "", opening.start - 1


def _ends(lines: Sequence[str], opening: _Opening, whole: bool) -> list[tuple[int, str]]:
    """Where a block may end: the number of a line, and what of that line belongs to the block."""
    alone: list[tuple[int, str]] = []
    glued: list[tuple[int, str]] = []
    for number in range(opening.start, len(lines)):
        found = next((f for f in _FENCE.finditer(lines[number]) if f[0].startswith(opening.fence)), None)
        if found is None:
            continue
        before, after = lines[number][: found.start()], lines[number][found.end() :]
        if before.strip(" \t>"):
            glued.append((number, before))
        elif after.strip():
            glued.append((number, ""))
        else:
            alone.append((number, ""))
    size = len(lines) - (not lines[-1])
    return [*alone, *glued, *([(size, "")] if whole else [])]


def _without(prefix: str, line: str) -> str:
    """`line` without what it shares with `prefix`, the indentation or quotation marks of its block."""
    shared = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prefix, line, strict=False))
    )
    return line[shared:]
