"""Python sources in files, read as Python reads them."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

_DECLARATION = re.compile(r"\A(?P<before>(?:[^\n]*\n)??[ \t\f]*#.*?coding[:=][ \t]*)[-\w.]+")


def read_source(path: Path) -> str:
    """The source in the file: a byte order mark or a declaration in its first two lines tells the encoding.

    Lines end with line feeds. What declared another encoding declares UTF-8, in which sources are written.
    Raises `OSError`, and `ValueError` for bytes that are no text in the file's encoding.
    """
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:  # an unknown encoding, or first lines that are not in it
        raise ValueError(error.msg) from None
    text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    if encoding.startswith("utf-8"):
        return text
    return _DECLARATION.sub(lambda found: f"{found['before']}utf-8", text)
