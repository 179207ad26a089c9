"""What comes out of a process that runs a candidate, before anything else looks at it. Without torch.

A value has the type and the size that an untouched child sends, or `CandidateForged` is raised and nothing
else. Text can be stored, sent and printed afterwards: no lone surrogates, which no file takes, and no control
characters, by which a terminal would show something else than is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 2000
MAX_NAME = 100
_INDENT = "    "
_LARGEST = 1e300


class CandidateForged(Exception):
    """It sent something that the runner, left alone, never sends."""


def clean(text: str, most: int = MAX_TEXT) -> str:
    """At most the first `most` characters; what cannot be printed, as an escape sequence."""
    plain = text[:most].replace("\r\n", "\n").replace("\r", "\n")
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in plain)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str, most: int = MAX_NAME) -> str:
    """`clean`, without line breaks."""
    return " ".join(clean(text, most).split())


def indented(text: str) -> str:
    """All lines but the first moved to the right, so that none passes for a line of the evaluator's own."""
    return text.replace("\n", f"\n{_INDENT}")


def text_of(raw: Any, what: str, most: int = MAX_TEXT) -> str:
    """A clean string. Raises CandidateForged."""
    if type(raw) is not str:
        raise CandidateForged(f"{what} that is no text")
    return clean(raw, most)


def integer_of(raw: Any, what: str, *, below: int) -> int:
    """From zero up. Raises CandidateForged."""
    if type(raw) is not int or not 0 <= raw < below:
        raise CandidateForged(f"{what} that is no number from 0 to {below - 1}")
    return raw


def list_of(raw: Any, what: str, *, most: int) -> list[Any]:
    """Of at most so many items. Raises CandidateForged."""
    if type(raw) is not list or len(raw) > most:
        raise CandidateForged(f"{what} that are no list of at most {most}")
    return raw


def finite(raw: Any) -> float | None:
    """A number that can be calculated with, None for anything else: infinities, integers without end."""
    is_number = type(raw) in (int, float) and -_LARGEST < raw < _LARGEST
    return float(raw) if is_number else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception in a child: its type's name, its text, the candidate's own lines of its traceback."""

    kind: str
    text: str
    frames: str

    @classmethod
    def of(cls, raw: Any) -> Raised:
        """Raises CandidateForged."""
        if type(raw) is not dict:
            raise CandidateForged("an exception that is none")
        kind = one_line(text_of(raw.get("type", ""), "an exception's type", MAX_NAME))
        text = text_of(raw.get("text", ""), "an exception's text")
        frames = text_of(raw.get("frames", ""), "an exception's lines").split("\n")
        return cls(kind=kind, text=indented(text), frames="\n".join(f"  {f.strip()}" for f in frames if f))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def raised_of(message: Mapping[str, Any]) -> Raised | None:
    """The exception that a message tells of. Raises CandidateForged."""
    return Raised.of(message["raised"]) if message.get("raised") is not None else None


def rejected_of(message: Mapping[str, Any]) -> str | None:
    """Why the source defines no model, by a message. Raises CandidateForged."""
    raw = message.get("rejected_source")
    return None if raw is None else indented(text_of(raw, "a refusal"))
