"""SEARCH/REPLACE edits in a model's answer, applied to the kernel that they change.

An edit is applied where one reading of it fits one place, and refused otherwise: a source that nobody meant
must not be measured and credited. `EditFault` says why in words for the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SEARCH = re.compile(
    r"^(?:[^\w<]|edit|change|\d)*(?P<mark><{3,}) ?(?:SEARCH|FIND|ORIGINAL|HEAD)"
    r"\W*(?:[:(#].*|[\w./-]+\.\w+)?$",
    re.I,
)
_DIVIDER = re.compile(r"^\s*(?P<mark>={3,})\s*$")
_REPLACE = re.compile(r"^[^\w<>]*(?:>{3,} ?(?:REPLACE|UPDATED)\b.*|>{5,}(?:\s.*)?)$", re.I)
_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})[\w+-]*\s*$")


class EditFault(Exception):
    """The edits cannot be applied; the message is a sentence for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    search: tuple[str, ...]
    replace: tuple[str, ...]


def is_edit(line: str) -> bool:
    """True if an edit begins with `line`."""
    return _SEARCH.match(line) is not None


def apply_edits(lines: Sequence[str], parent: str) -> str:
    """`parent` with the edits in `lines` applied one after the other. Raises `EditFault`."""
    source = parent
    readings = _read(lines)
    for number, edits in enumerate(readings, start=1):
        try:
            source = _apply_one(source, edits)
        except EditFault as fault:
            raise EditFault(f"edit {number} of {len(readings)} {fault}") from None
    return source


def _read(lines: Sequence[str]) -> list[list[_Edit]]:
    """For each edit the ways to read it: one for each line that may divide its two parts."""
    readings: list[list[_Edit]] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None:
            if _SEARCH.match(line):
                start = number
            elif _REPLACE.match(line):
                raise EditFault(
                    f"a >>>>>>> REPLACE line stands after edit {len(readings)} without a <<<<<<< SEARCH "
                    "line before it: give the complete file instead."
                )
        elif _SEARCH.match(line):
            break
        elif _REPLACE.match(line):
            readings.append(_splits(lines[start : number + 1], number=len(readings) + 1))
            start = None
    if start is not None:
        divided = any(_DIVIDER.match(line) for line in lines[start:])
        missing = ">>>>>>> REPLACE line" if divided else "======= line"
        raise EditFault(f"edit {len(readings) + 1} is not finished: its {missing} is missing.")
    return readings


def _splits(marked: Sequence[str], *, number: int) -> list[_Edit]:
    """The readings of the lines from a SEARCH to a REPLACE mark; dividers as long as the mark come first."""
    opening = _SEARCH.match(marked[0])
    width = len(opening["mark"]) if opening else 0
    dividers = {at: len(found["mark"]) for at, line in enumerate(marked) if (found := _DIVIDER.match(line))}
    if not dividers:
        raise EditFault(f"edit {number} is not finished: its ======= line is missing.")
    chosen = [at for at, length in dividers.items() if length == width] or list(dividers)
    return [
        _Edit(search=_unfenced(marked[1:at]), replace=_unfenced(marked[at + 1 : len(marked) - 1]))
        for at in chosen
    ]


def _unfenced(lines: Sequence[str]) -> tuple[str, ...]:
    """`lines` without fences around all of them."""
    if len(lines) >= 2 and _FENCE.match(lines[0]) and _FENCE.match(lines[-1]):
        return tuple(lines[1:-1])
    return tuple(lines)


def _apply_one(source: str, readings: Sequence[_Edit]) -> str:
    """`source` changed by the one reading that fits."""
    if len(readings) == 1:
        return _changed(source, readings[0])
    results: list[str] = []
    for edit in readings:
        try:
            results.append(_changed(source, edit))
        except EditFault:
            continue
    if len(results) == 1:
        return results[0]
    how = "in more than one way" if results else "in no way"
    raise EditFault(
        f"has {len(readings)} lines of ======= and fits {how}: quote lines without such a line, or give the "
        "complete file."
    )


def _changed(source: str, edit: _Edit) -> str:
    """`source` with the one place that `edit.search` matches replaced.

    Whole lines are compared: first with white space at their ends left out, then without white space and
    empty lines. In the second case the new lines are indented as the place is.
    """
    lines = source.split("\n")
    if not any(line.startswith("\t") for line in lines):
        edit = _Edit(search=_untabbed(edit.search), replace=_untabbed(edit.replace))
    wanted = [line.rstrip() for line in edit.search]
    if not any(wanted):
        raise EditFault("has an empty SEARCH part: quote the lines that it replaces.")
    bare = [line.rstrip() for line in lines]
    exact = [at for at in range(len(bare) - len(wanted) + 1) if bare[at : at + len(wanted)] == wanted]
    if exact:
        at = _only(exact, wanted)
        return "\n".join([*lines[:at], *edit.replace, *lines[at + len(wanted) :]])
    first, last = _loose_place(lines, wanted)
    new = _reindented(edit.replace, lines[first : last + 1], wanted)
    return "\n".join([*lines[:first], *new, *lines[last + 1 :]])


def _untabbed(lines: Sequence[str]) -> tuple[str, ...]:
    """`lines` with four spaces for each tab of their indentation."""
    return tuple(_indentation(line).expandtabs(4) + line.lstrip() for line in lines)


def _only(places: Sequence[int], wanted: Sequence[str]) -> int:
    begins = next(line for line in wanted if line).strip()
    if not places:
        raise EditFault(f"does not match: the kernel has no such lines, beginning {begins!r}.")
    if len(places) > 1:
        raise EditFault(f"matches {len(places)} places, beginning {begins!r}: quote more lines around it.")
    return places[0]


def _loose_place(lines: Sequence[str], wanted: Sequence[str]) -> tuple[int, int]:
    """The first and last line of the one place that equals `wanted` but for white space and empty lines."""
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    bare = ["".join(lines[number].split()) for number in numbers]
    sought = ["".join(line.split()) for line in wanted if line]
    places = [at for at in range(len(bare) - len(sought) + 1) if bare[at : at + len(sought)] == sought]
    at = _only(places, wanted)
    return numbers[at], numbers[at + len(sought) - 1]


def _reindented(replace: Sequence[str], place: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """`replace` with the indentation that `place` has and `wanted`, which was to match it, has not."""
    there = [_indentation(line) for line in place if line.strip()]
    here = [_indentation(line) for line in wanted if line]
    body = "\n".join(replace).strip("\n").split("\n") if any(line.strip() for line in replace) else []
    if not here[0] and here[1:] and here[1:] == there[1:]:  # lost where models lose it: at the beginning
        return [there[0] + body[0].lstrip(), *body[1:]] if body else []
    differences = {_difference(a, b) for a, b in zip(here, there, strict=True)}
    surplus, missing = differences.pop()
    if differences or not all(line.startswith(surplus) for line in body if line.strip()):
        raise EditFault(
            "does not match: its lines are indented otherwise than the kernel's, beginning "
            f"{place[0].strip()!r}. Copy them exactly."
        )
    return [missing + line[len(surplus) :] if line.strip() else line for line in body]


def _difference(here: str, there: str) -> tuple[str, str]:
    """The indentations `here` and `there` without the end that they share."""
    while here and there and here[-1] == there[-1]:
        here, there = here[:-1], there[:-1]
    return here, there


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
