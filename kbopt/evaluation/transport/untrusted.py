"""Decoders of values from a process that runs a candidate. No torch.

Each function returns a value of the type and size that an honest process sends, or raises CandidateForged.
Text is safe to store, send and print: it has no lone surrogates, which cannot be encoded, and no control
characters, which could change what a terminal shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from kbopt.core import codec
from kbopt.evaluation.messages import Raised, SourceRefused

MAX_TEXT = 2000
"""Characters of a text that are kept, such as an exception's: half of what a feedback has for all of its
parts."""
MAX_NAME = 100
"""Characters of a name that are kept, such as a type's or a kernel's: it stands in a line with others."""
_MOST_ITEMS = 64
"""Items of a list in a value at most. An honest process sends fewer."""
_MOST_NUMBER = 2**62
"""Numbers in a value lie below: sums of two still fit into 64 bits."""
_INDENT = "    "
_LARGEST = 1e300
"""Size of a number at most: sums and products with small factors stay finite below float64's 1.8e308."""


class CandidateForged(Exception):
    """A worker sent something that an honest one never sends."""


def clean(text: str, most: int = MAX_TEXT) -> str:
    """Return the first `most` characters, with escape sequences for those that cannot be printed."""
    plain = text[:most].replace("\r\n", "\n").replace("\r", "\n")
    if plain.isprintable():
        return plain
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in plain
    )


def one_line(text: str, most: int = MAX_NAME) -> str:
    """Return the text as `clean` does, with spaces for line breaks."""
    return " ".join(clean(text, most).split())


def indented(text: str) -> str:
    """Indent all lines but the first, so that none looks like the evaluator's own."""
    return text.replace("\n", f"\n{_INDENT}")


def decoded(kind: Any, raw: Any, what: str) -> Any:
    """Return a value of a `kind` that `core.codec` decodes, not yet bounded. Raises CandidateForged."""
    try:
        return codec.decode(kind, raw)
    except (codec.CodecError, OverflowError):
        raise CandidateForged(f"{what} that is none") from None


def value_of(kind: Any, raw: Any, what: str, most: Mapping[str, float] | None = None) -> Any:
    """Return a value of a `kind` that `core.codec` decodes. Raises CandidateForged.

    Its numbers are from 0 up. Lists are cut, and text is cut to a line of `MAX_NAME` characters. For fields
    of the names in `most`, that is the largest number or the length of text.
    """
    return bounded(decoded(kind, raw, what), what, most)


def bounded(value: Any, what: str, most: Mapping[str, float] | None = None) -> Any:
    """Do the same to a value that is decoded already."""
    return _bounded(value, "", what, most or {})


def _bounded(value: Any, name: str, what: str, most: Mapping[str, float]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return one_line(value, int(most.get(name, MAX_NAME)))
    if isinstance(value, tuple):
        return tuple(_bounded(item, "", what, most) for item in value[:_MOST_ITEMS])
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{at: _bounded(getattr(value, at), at, what, most) for at in names})
    if not 0 <= value < _MOST_NUMBER:
        raise CandidateForged(f"{what} with a number that is none")
    return min(value, most.get(name, value))


def finite(raw: Any) -> float | None:
    """Return a number below 1e300 in size as a float, or None for anything else."""
    is_number = type(raw) in (int, float) and -_LARGEST < raw < _LARGEST
    return float(raw) if is_number else None


def says(kind: type, raw: Any) -> bool:
    """Return whether a message calls itself a `kind`."""
    return type(raw) is dict and raw.get("type") == kind.__name__


def failure_in(raw: Any) -> Raised | SourceRefused | None:
    """Return the failure that a message tells of, with its text cleaned, or None. Raises CandidateForged."""
    if says(Raised, raw):
        raised: Raised = decoded(Raised, raw, "an exception")
        lines = clean(raised.frames).split("\n")
        return replace(
            raised,
            kind=one_line(raised.kind),
            text=indented(clean(raised.text)),
            frames="\n".join(f"  {line.strip()}" for line in lines if line),
        )
    if says(SourceRefused, raw):
        refused: SourceRefused = decoded(SourceRefused, raw, "a refusal")
        return replace(refused, reason=indented(clean(refused.reason)))
    return None
