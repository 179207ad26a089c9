"""Text from outside, made fit for JSON, SQLite and a terminal where it comes in."""

from __future__ import annotations

from collections.abc import Collection


def encodable(text: str) -> str:
    r"""`text` with each half of a surrogate pair, which no encoding of Unicode has, written as `\udc80`.

    Python makes such characters of bytes that are no UTF-8, and JSON can spell them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """The words of `text` on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def first_line(text: str, limit: int = 120) -> str:
    """The first line with something on it, cut to `limit` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def ranges(numbers: Collection[int]) -> str:
    """Ascending whole numbers in words, such as `1 to 20, 23`."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    told = (f"{low} to {high}" if low < high else f"{low}" for low, high in zip(starts, ends, strict=True))
    return ", ".join(told)


def plural(count: int, one: str, many: str = "") -> str:
    """`1 evaluation`, `1,200 evaluations`. `many` is given where an s does not make it from `one`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
