"""The library: lessons of many searches in one TOML file, which people read and edit.

kbopt only ever adds entries at its end: what a person wrote, changed or took out stays so.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from kbopt.core.errors import UserError
from kbopt.core.lessons import TEXT_CHARS, Lesson, LessonKind
from kbopt.core.text import encodable, one_line

HEAD = """\
# Lessons of kbopt's searches, for later ones: what made kernels faster, and what went wrong.
# `kbopt run --library` names this file. Edit it as you like, and write entries of your own: all but
# `text` may be left out. kbopt adds at the end.
"""


def read_lessons(path: Path) -> tuple[Lesson, ...]:
    """All lessons in the file, none where there is none. Raises `UserError` for one that cannot be read."""
    try:
        return _lessons(path.read_text(encoding="utf-8-sig")) if path.exists() else ()
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None


def add_lessons(path: Path, lessons: Sequence[Lesson]) -> int:
    """Append those whose ids the file does not have; how many they were.

    A reader sees the old file or the new one. Whoever adds at the same time waits, in this process or
    another. A file that cannot be read is left as it is: raises `UserError`.
    """
    try:
        with _locked(path):
            path = path.resolve()
            text = path.read_text(encoding="utf-8") if path.exists() else HEAD
            known = {lesson.id for lesson in _lessons(text.removeprefix("\ufeff"))}
            new = [lesson for lesson in lessons if lesson.id not in known]
            if new:
                _write(path, "\n".join([text.rstrip("\n"), *map(_entry, new)]))
            return len(new)
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the library {path} cannot be used: {error}. Mend the file, name another one with --library, or "
        "leave it out with --no-library."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file, by a lock beside it that ends with the process."""
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        draft.chmod(path.stat().st_mode & 0o777)
    draft.replace(path)


def _lessons(text: str) -> tuple[Lesson, ...]:
    document = tomllib.loads(text)
    entries = document.pop("lesson", [])
    if document:
        raise ValueError(f"it has {next(iter(document))!r}, and should have [[lesson]] entries alone")
    if not isinstance(entries, list):
        raise ValueError("a lesson begins with [[lesson]]")
    return tuple(_lesson(entry, number) for number, entry in enumerate(entries, 1))


_NAMES = {field.name for field in fields(Lesson)}
_KINDS: tuple[LessonKind, ...] = get_args(LessonKind)


def _lesson(entry: Any, number: int) -> Lesson:
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise ValueError(f"lesson {number} has no text")
    if unknown := sorted(entry.keys() - _NAMES):
        raise ValueError(f"lesson {number} has {unknown[0]!r}, and known are {', '.join(sorted(_NAMES))}")
    kind = next((one for one in _KINDS if one == entry.get("kind", "advice")), None)
    if kind is None:
        raise ValueError(
            f"the kind of lesson {number} is {entry['kind']!r}, and known are {', '.join(_KINDS)}"
        )
    low, high = _numbers(entry, "interval", number, [0.0, 0.0])
    (gain,) = _numbers(entry, "gain", number, 0.0)
    words = {name: _word(entry, name) for name in _NAMES - {"kind", "gain", "interval", "text"}}
    text = one_line(entry["text"])[:TEXT_CHARS]
    return Lesson(kind=kind, text=text, gain=gain, interval=(low, high), **words)


def _word(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name, "")
    return value.isoformat() if isinstance(value, datetime.date) else one_line(str(value))


def _numbers(
    entry: Mapping[str, Any], name: str, number: int, default: float | list[float]
) -> tuple[float, ...]:
    value = entry.get(name, default)
    found = value if isinstance(value, list) else [value]
    expected = len(default) if isinstance(default, list) else 1
    if len(found) != expected or not all(isinstance(one, int | float) for one in found):
        raise ValueError(f"{name} of lesson {number} is {value!r}, and has to be {expected} number(s)")
    return tuple(map(float, found))


def _entry(lesson: Lesson) -> str:
    lines = ["", "[[lesson]]"]
    lines += [f"{name} = {_quoted(value)}" for name, value in _words(lesson) if value]
    if lesson.gain:
        low, high = lesson.interval
        lines.append(f"gain = {lesson.gain}\ninterval = [{low}, {high}]")
    return "\n".join([*lines, f"text = {_quoted(lesson.text)}", ""])


def _words(lesson: Lesson) -> tuple[tuple[str, str], ...]:
    names = ("kind", "task", "family", "language", "device", "date", "run", "id")
    return tuple((name, getattr(lesson, name)) for name in names)


def _quoted(text: str) -> str:
    """As a basic string of TOML; what is not printable became a space."""
    line = one_line(encodable(text)).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{line}"'
