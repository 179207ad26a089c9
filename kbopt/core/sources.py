"""Python sources in files, read as Python reads them."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

_MOST_BYTES = 64 * 2**20
"""Of a file: the largest kernels and references that are published have a hundredth of it."""
_DECLARATION = re.compile(r"\A(?P<before>(?:[^\n]*\n)??[ \t\f]*#.*?coding[:=][ \t]*)[-\w.]+")


def read_source(path: Path) -> str:
    """The source in the file: a byte order mark or a declaration in its first two lines tells the encoding.

    Lines end with line feeds. What declared another encoding declares UTF-8, in which sources are written.
    Raises `OSError`, and `ValueError` for bytes that are no text in the file's encoding, and for a file that
    is too large or, as `/dev/zero`, without an end.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES // 2**20} MiB")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:  # an unknown encoding, or first lines that are not in it
        raise ValueError(error.msg) from None
    text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    if encoding.startswith("utf-8"):
        return text
    return _DECLARATION.sub(lambda found: f"{found['before']}utf-8", text)
