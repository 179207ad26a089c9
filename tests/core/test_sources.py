"""Files of Python are read as Python reads them."""

import runpy
from pathlib import Path

import pytest

from kbopt.core.sources import read_source


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfX = '\xc3\xa9'\n", "X = 'é'\n"),
        (b"# -*- coding: latin-1 -*-\nX = '\xe9'\n", "# -*- coding: utf-8 -*-\nX = 'é'\n"),
        (b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nX = '\x80'\n", None),
        (b"# coding: euc-jp\n# coding: of nothing\nX = '\xa4\xa2'\n", None),
        (b"# coding: utf-8\nX = '\xc3\xa9'\n", "# coding: utf-8\nX = 'é'\n"),
        (b"X = 1\r\nY = 2\rZ = 3\n", "X = 1\nY = 2\nZ = 3\n"),
        (b"", ""),
    ],
)
def test_a_source_means_what_it_means_to_python(data: bytes, text: str | None, tmp_path: Path) -> None:
    path, written = tmp_path / "given.py", tmp_path / "written.py"
    path.write_bytes(data)
    source = read_source(path)
    written.write_text(source, encoding="utf-8")
    if text is not None:
        assert source == text
    assert runpy.run_path(str(written)).get("X") == runpy.run_path(str(path)).get("X")


@pytest.mark.parametrize(
    "data", [b"\xff\xfeX\x00", b"# coding: no-such\n", b"X = '\xe9'\n", b"a\nb\nX = '\xe9'\n"]
)
def test_bytes_that_are_no_text_are_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "given.py"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"codec|encoding"):
        read_source(path)


def test_a_file_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="it has more than 64 MiB"):
        read_source(Path("/dev/zero"))
