"""A file system of one file, whose pages take as long to come as a test says (fuse(4), by root only)."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kbopt.evaluation.sandbox import linux

PAGES = 64
PAGE_BYTES = 4096
_HEADER = struct.Struct("<IIQQIIIHH")
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _INIT, _INTERRUPT = 1, 2, 3, 14, 15, 18, 26, 36
_FOLDER, _FILE = 1, 2
"""Numbers of the two nodes."""
_NO_ENTRY, _NO_SUCH_CALL = -2, -38
_FOREVER_S = 3600


@contextmanager
def slow_file(folder: Path, seconds: float) -> Iterator[Path]:
    """Mount the file system at `folder` and yield the file's path. Every page takes `seconds` to come."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    linux.mount("slow", str(folder), "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other")
    threading.Thread(target=_serve, args=(fd, seconds), daemon=True).start()
    try:
        yield folder / "file"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        os.close(fd)


def _serve(fd: int, seconds: float) -> None:
    while True:
        try:
            request = os.read(fd, 2**18)
        except OSError:  # It is unmounted.
            return
        _, operation, number, node, *_ = _HEADER.unpack_from(request)
        if operation in (_FORGET, _INTERRUPT):
            continue
        if operation == _READ:
            time.sleep(seconds)
        answer = _answer(operation, node, request[_HEADER.size :])
        error, content = (answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(fd, struct.pack("<IiQ", 16 + len(content), error, number) + content)


def _answer(operation: int, node: int, content: bytes) -> bytes | int:
    if operation == _INIT:
        major, minor = struct.unpack_from("<II", content)
        return struct.pack("<IIIIHHIIHHI28x", major, minor, 0, 0, 1, 1, PAGE_BYTES, 1, 1, 0, 0)
    if operation == _LOOKUP:
        if content.rstrip(b"\0") != b"file":
            return _NO_ENTRY
        return struct.pack("<QQQQII", _FILE, 0, _FOREVER_S, _FOREVER_S, 0, 0) + _attributes(_FILE)
    if operation == _GETATTR:
        return struct.pack("<QII", _FOREVER_S, 0, 0) + _attributes(node)
    if operation == _OPEN:
        return struct.pack("<QII", 1, 0, 0)
    if operation == _READ:
        return b"x" * PAGE_BYTES
    return b"" if operation == _RELEASE else _NO_SUCH_CALL


def _attributes(node: int) -> bytes:
    is_file = node == _FILE
    mode = stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o755
    size = PAGES * PAGE_BYTES if is_file else 0
    return struct.pack("<QQQ24x12xIIIIIII", node, size, PAGES, mode, 1, 0, 0, 0, PAGE_BYTES, 0)
