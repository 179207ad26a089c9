"""Files of JSON lines that a command appends to, and reads to go on with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from kbopt.core.errors import UserError


@contextmanager
def appending(out: Path) -> Iterator[TextIO]:
    """`out` open for further lines, the first of which begins a line also after a torn one."""
    is_torn = out.exists() and out.read_bytes()[-1:] not in (b"", b"\n")
    with out.open("a", encoding="utf-8") as sink:
        if is_torn:
            sink.write("\n")
        yield sink


def check_lines(out: Path) -> None:
    """Raises `UserError` where `out` is a file that begins with something else than a JSON object, perhaps a
    torn one: lines would spoil it.
    """
    if not out.is_file():
        return
    with out.open("rb") as file:
        begin = file.read(4096).lstrip()
    if begin and not begin.startswith(b"{"):
        raise UserError(
            f"--out {out} exists and holds no JSON lines, which are appended to. Give another file, or take "
            "this one away."
        )


def objects(out: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects that `out` holds, a line each; torn lines are left out. None where it is not there."""
    if not out.exists():
        return
    for text in out.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
