"""Decoders of values from a process that runs a candidate. No torch.

Each function returns a value of the type and size that an honest process sends, or raises CandidateForged.
Text is safe to store, send and print: it has no lone surrogates, which cannot be encoded, and no control
characters, which could change what a terminal shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from kbopt.core import codec

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


def text_of(raw: Any, what: str, most: int = MAX_TEXT) -> str:
    """Return a string, cleaned. Raises CandidateForged."""
    if type(raw) is not str:
        raise CandidateForged(f"{what} that is no text")
    return clean(raw, most)


def integer_of(raw: Any, what: str, *, below: int) -> int:
    """Return an integer from 0 to below `below`. Raises CandidateForged."""
    if type(raw) is not int or not 0 <= raw < below:
        raise CandidateForged(f"{what} that is no number from 0 to {below - 1}")
    return raw


def list_of(raw: Any, what: str, *, most: int, fewest: int = 0) -> list[Any]:
    """Return a list of `fewest` to `most` items. Raises CandidateForged."""
    if type(raw) is not list or not fewest <= len(raw) <= most:
        raise CandidateForged(f"{what} that are no list of {fewest} to {most}")
    return raw


def value_of(kind: Any, raw: Any, what: str, most: Mapping[str, float] | None = None) -> Any:
    """Return a value of a `kind` that `core.codec` decodes. Raises CandidateForged.

    Its numbers are from 0 up. Lists are cut, and text is cut to a line of `MAX_NAME` characters. For fields
    of the names in `most`, that is the largest number or the length of text.
    """
    try:
        value = codec.decode(kind, raw)
    except (codec.CodecError, OverflowError):
        raise CandidateForged(f"{what} that is none") from None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception in a worker: its type's name, its text, and the candidate's lines of its traceback."""

    kind: str
    text: str
    frames: str

    @classmethod
    def of(cls, raw: Any) -> Raised:
        """Decode an exception. Raises CandidateForged."""
        if type(raw) is not dict:
            raise CandidateForged("an exception that is none")
        kind = one_line(text_of(raw.get("type", ""), "an exception's type", MAX_NAME))
        text = text_of(raw.get("text", ""), "an exception's text")
        frames = text_of(raw.get("frames", ""), "an exception's lines").split("\n")
        return cls(kind=kind, text=indented(text), frames="\n".join(f"  {f.strip()}" for f in frames if f))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def raised_of(message: Mapping[str, Any]) -> Raised | None:
    """Return the exception in a message, or None. Raises CandidateForged."""
    return Raised.of(message["raised"]) if message.get("raised") is not None else None


def rejected_of(message: Mapping[str, Any]) -> str | None:
    """Return the reason in a message why the source defines no model, or None. Raises CandidateForged."""
    raw = message.get("rejected_source")
    return None if raw is None else indented(text_of(raw, "a refusal"))
