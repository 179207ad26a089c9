"""The files of a spool: its format, a writer of lines, and a reader of lines as they are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.profile import ProfileRequest

FORMAT = 1
"""Version of the format. Readers refuse any other."""
LABEL = "spool.json"
REQUESTS, CLAIMS, RESULTS, JOBS = PARTS = ("requests", "claims", "results", "jobs")

POLL_S = 1.0
"""Seconds between two looks at the folder."""

_ID = re.compile(r"[0-9a-f]{32}")
_VERSION = "kbopt spool"
SAME_VERSION = "Use the same version of kbopt for the search and for the drain."

Say = Callable[[str], None]


def open_spool(folder: Path, *, create: bool = False) -> Path:
    """Return `folder` as an absolute path, with all parts of a spool in it.

    With `create` the folder is made if its parent exists. Raises UserError if the folder is missing, holds
    other files, cannot be written or has another format.
    """
    folder = folder.absolute()
    try:
        if create:
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            raise UserError(
                f"{folder} is no folder. Make it, or name the folder that the search was given with --spool."
            )
        label = folder / LABEL
        if not label.exists():
            others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
            if set(others) - set(PARTS):
                raise UserError(f"{folder} is no spool: it holds {others[0]}, and no {LABEL}. Name another.")
            publish(label, {_VERSION: FORMAT})
        _check_format(label)
        for part in PARTS:
            (folder / part).mkdir(exist_ok=True)
            if not os.access(folder / part, os.W_OK | os.X_OK):
                raise UserError(f"{folder / part} cannot be written. Name a folder that can be.")
    except OSError as error:
        raise UserError(f"{folder} cannot be a spool: {error}. Name a folder that can be written.") from None
    return folder


def _check_format(label: Path) -> None:
    try:
        found = json.loads(label.read_bytes())[_VERSION]
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{label} does not say which format the spool has. Name another folder, or take this file away."
        ) from None
    if found != FORMAT:
        raise UserError(
            f"{label.parent} is a spool of format {found!r}, and this kbopt reads format {FORMAT}. "
            f"{SAME_VERSION}"
        )


def publish(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace `path` atomically: a reader sees the old file or the new one. Raises OSError."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            file.write(line_of(fields))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def request_id(owner: str, request: EvalRequest | ProfileRequest, asking: int) -> str:
    """Return the id of a request of `owner`. `asking` counts, from 0, how often it asked for an equal one."""
    text = f"{owner}\n{asking}\n{codec.dumps(request)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_id(name: object) -> TypeGuard[str]:
    """Return whether `name` is a valid id of a request. An id becomes part of a file's name."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read. Raises OSError for a pipe, whose writer may never come."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        yield file


class AppendOnly:
    """A new file of JSON lines, written only by this object, from any thread.

    A line that was written in part is cut off before the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._size = 0
        self._torn = False
        self._lock = threading.Lock()

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write one line and sync it to the disk. Raises InfraError; a later call may then write it again."""
        data = line_of({_VERSION: FORMAT, **fields})
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                raise InfraError(f"cannot write {self.path}: {error}") from error

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
            _sync_folder(self.path.parent)
        if self._torn:
            os.ftruncate(self._descriptor, self._size)
        self._torn, done = True, 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], self._size + done)
        self._torn = False
        self._size += len(data)
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Complaints:
    """Says each complaint once. `latest` is the last complaint, also if it was said before."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()
        self.latest = ""

    def __call__(self, text: str) -> None:
        self.latest = text
        if text not in self._said:
            self._said.add(text)
            self._say(text)


@dataclass(frozen=True, slots=True)
class Line:
    """One complete line of a file: line `number`, counted from 1, which begins at byte `offset`."""

    path: Path
    number: int
    offset: int
    fields: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.number}"


class Tails:
    """Reads the files of one folder as they grow, each complete line once.

    It complains of lines that it cannot read. `expect` adds a file that the folder's listing may not show
    yet.
    """

    def __init__(self, folder: Path, complain: Say) -> None:
        self._folder = folder
        self._complain = complain
        self._places: dict[str, tuple[int, int]] = {}

    def expect(self, name: str) -> None:
        self._places.setdefault(name, (0, 0))

    def new(self) -> Iterator[Line]:
        """Yield the lines that are new since the last call. Raises OSError if the folder cannot be listed."""
        for path in self._folder.iterdir():
            if path.suffix == ".jsonl":
                self.expect(path.name)
        for name in sorted(self._places):
            try:
                yield from self._lines(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(f"cannot read {self._folder / name}: {error}")

    def _lines(self, name: str) -> Iterator[Line]:
        path = self._folder / name
        offset, number = self._places[name]
        with open_regular(path) as file:
            file.seek(offset)
            for text in file:
                if not text.endswith(b"\n"):
                    break
                # A network file system may show the end of a write before its middle, which reads as nulls.
                if b"\0" in text and not file.peek(1):
                    break
                number += 1
                self._places[name] = offset + len(text), number
                line = self._parsed(path, number, offset, text)
                offset += len(text)
                if line is not None:
                    yield line

    def _parsed(self, path: Path, number: int, offset: int, text: bytes) -> Line | None:
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            self._complain(f"{path}, line {number}: this is no JSON object; it is passed over")
        elif fields.get(_VERSION) != FORMAT:
            self._complain(
                f"{path}, line {number}: this has spool format {fields.get(_VERSION)!r}, and this kbopt "
                f"reads {FORMAT}; it is passed over. {SAME_VERSION}"
            )
        else:
            return Line(path, number, offset, fields)
        return None


def line_of(fields: Mapping[str, Any]) -> bytes:
    """Encode a line in ASCII. It holds no nulls, and no line feed except at its end."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
