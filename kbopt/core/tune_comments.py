"""`tune:` comments: what a kernel's source says can be varied. The one reading of them.

A line assigns a value and lists the alternatives beside it, in Python or in C, also in C inside a string:

    BLOCK = 64  # tune: 16, 32, 64, 128
    #define UNROLL 4  // tune: 1, 2, 4, 8
    constexpr int TILE = 8; /* tune: 8, 16 */
    FLAGS = ["-O3"]  # tune: ["-O2"], ["-O3"], ["-O3", "-funroll-loops"]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_COMMENTED = re.compile(r"^.*tune:.*$", re.MULTILINE)
_ASSIGNMENT = re.compile(
    r"(?P<head>[ \t]*\#[ \t]*define[ \t]+(?P<macro>[A-Za-z_]\w*)[ \t]+"
    r"|[^=#\"']*?\b(?P<name>[A-Za-z_]\w*)(?:[ \t]*:[^=]*)?[ \t]*=(?!=)[ \t]*)"
    r"(?P<value>[^\s,;].*?)"
    r"(?P<tail>[,;]?[ \t]*(?:\#|//|/\*)[ \t]*tune:[ \t]*(?P<choices>.*?)[ \t]*(?:\*/)?[ \t]*)"
)
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_OPENING = {closing: opening for opening, closing in _BRACKETS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A named value with its alternatives, all as the source spells them.

    `choices` are those of the comment, each once; `value` need not be among them.
    """

    name: str
    value: str
    choices: tuple[str, ...]

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The choices but the present one."""
        return tuple(choice for choice in self.choices if choice != self.value)


def parse(source: str) -> tuple[Tunable, ...]:
    """The tunables of `source` in their order. Where a name occurs twice, the first line counts."""
    found: dict[str, Tunable] = {}
    for line in _COMMENTED.finditer(source):
        parts = _read(line[0])
        if parts:
            choices = tuple(dict.fromkeys(_split(parts.choices)))
            found.setdefault(parts.name, Tunable(name=parts.name, value=parts.value, choices=choices))
    return tuple(found.values())


def substitute(source: str, values: Mapping[str, str]) -> str:
    """`source` with the named tunables set, on every line that tunes them; nothing else changes.

    Raises `ValueError` for a name that `source` does not tune.
    """
    unknown = values.keys() - {tunable.name for tunable in parse(source)}
    if unknown:
        raise ValueError(f"the source tunes no {', '.join(sorted(unknown))}")

    def replaced(line: re.Match[str]) -> str:
        parts = _read(line[0])
        if parts is None or parts.name not in values:
            return line[0]
        return parts.head + values[parts.name] + parts.tail

    return _COMMENTED.sub(replaced, source)


class _Parts(NamedTuple):
    """A line that tunes a value: it is `head + value + tail`."""

    name: str
    head: str
    value: str
    tail: str
    choices: str


def _read(line: str) -> _Parts | None:
    found = _ASSIGNMENT.fullmatch(line)
    if found is None:
        return None
    value = found["value"].rstrip()
    while value[-1] in ")]}" and value.count(value[-1]) > value.count(_OPENING[value[-1]]):
        value = value[:-1].rstrip()  # closes a call that was opened before: `f(x, BLOCK=64)  # tune: ...`
        if not value:
            return None
    tail = line[found.start("value") + len(value) :]
    name = found["macro"] or found["name"]
    return _Parts(name=name, head=found["head"], value=value, tail=tail, choices=found["choices"])


def _split(text: str) -> list[str]:
    """The comma-separated items of `text`; commas in brackets and quotes do not separate."""
    items, current, closing, quote = [], "", [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            items.append(current)
            current = ""
            continue
        current += char
    return [item.strip() for item in (*items, current) if item.strip()]
