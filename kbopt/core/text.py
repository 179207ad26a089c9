"""Text from outside, made fit for JSON, SQLite and a terminal where it comes in."""

from __future__ import annotations


def encodable(text: str) -> str:
    r"""`text` with halves of surrogate pairs, which no encoding of Unicode has, written as `\udc80`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """The words of `text` on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def first_line(text: str, limit: int = 120) -> str:
    """The first line with something on it, cut to `limit` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 evaluation`, `1,200 evaluations`. `many` is given where an s does not make it from `one`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
