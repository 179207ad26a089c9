"""The journal of one search: every event, in order, on disk before the search acts on it.

One SQLite file in WAL mode. A committed event survives a killed process (`synchronous=NORMAL`; the last
events may be lost when the machine loses power, never the file). One writer at a time, any number of
readers while it writes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import Entry, Event, Raised

FORMAT_VERSION = 1

_SCHEMA = """
create table if not exists header (key text primary key, value text not null) strict;
create table if not exists events (
    number integer primary key, time real not null, kind text not null, body text not null
) strict;
"""


class JournalReader:
    """Reads a journal, also one that is being written or was cut off by a crash."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"no journal at {path}. A run's folder holds one; `kbopt runs` lists the runs.")
        self.path = path
        try:
            self._connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            try:
                self._check_version()
            except sqlite3.OperationalError as error:
                if not _is_of_the_path(error):
                    raise
                self._connection.close()
                self._connection = _connect_where_nothing_can_be_written(path)
                self._check_version()
        except (sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, OSError) or _is_of_the_path(error):
                raise UserError(f"{path} cannot be read: {error}. Name a run that you may read.") from None
            raise UserError(f"{path} is not a kbopt journal: {error}") from None

    def _check_version(self) -> None:
        version = int(self._header("format"))
        if version > FORMAT_VERSION:
            raise UserError(
                f"{self.path} has journal format {version}; this kbopt reads up to {FORMAT_VERSION}. "
                "Install the kbopt that wrote it, or a newer one."
            )

    def _header(self, key: str) -> str:
        row = self._connection.execute("select value from header where key = ?", (key,)).fetchone()
        if row is None:
            raise UserError(f"{self.path} has no {key!r} in its header: it is not a kbopt journal")
        return str(row[0])

    @property
    def config(self) -> str:
        """The run's configuration as the JSON text that it was created with."""
        return self._header("config")

    def entries(self, after: int = 0, kind: type[Event] | None = None) -> Iterator[Entry]:
        """The entries with a number above `after`, in order; of one `kind` of event, where it is given."""
        query = "select number, time, body from events where number > ? and kind = ifnull(?, kind)"
        number = after
        try:
            found = self._connection.execute(f"{query} order by number", (after, kind and kind.__name__))
            for number, when, body in found:
                yield Entry(number=number, time=when, event=codec.loads(Event, body))  # type: ignore[arg-type]
        except sqlite3.OperationalError as error:  # the disk or a lock, not the file
            raise InfraError(f"cannot read {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path} is damaged after entry {number}: {error}. "
                "What is readable of it can be copied with SQLite's `.recover`."
            ) from None
        except codec.CodecError as error:
            raise UserError(
                f"{self.path}, entry {number}: {error}. Another version of kbopt wrote it: use that one."
            ) from None

    def raises(self) -> tuple[Raised, ...]:
        """The limits that were raised since the search was begun, oldest first."""
        return tuple(e.event for e in self.entries(kind=Raised) if isinstance(e.event, Raised))

    @property
    def last(self) -> int:
        """The number of the newest entry, 0 for none."""
        row = self._connection.execute("select coalesce(max(number), 0) from events").fetchone()
        return int(row[0])

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SqliteJournal(JournalReader):
    """The one writer of a journal. Holds a lock that dies with the process.

    Raises `UserError` where another writer has not gone after `wait_s`.
    """

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        self._lock = _lock(path, wait_s)
        super().__init__(path)
        _make_durable(self._connection)
        self._next = self.last + 1

    @classmethod
    def create(cls, path: Path, config: str) -> Self:
        """A new, empty journal. `config` is the JSON of the run's configuration.

        Raises `UserError` where the file exists: a journal is never overwritten. Raises it too where the file
        cannot be written, as on a full disk; a folder that was made for it is gone then.
        """
        is_new = not path.parent.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            try:
                _create(path, config)
            finally:
                os.close(lock)
        except (OSError, sqlite3.OperationalError) as error:
            if is_new:
                shutil.rmtree(path.parent, ignore_errors=True)
            raise UserError(f"cannot write {path}: {error}. Choose a writable folder with --out.") from None
        return cls(path)

    def append(self, event: Event) -> None:
        """Commit `event`. Raises `InfraError` when the disk is full or gone; then nothing was written."""
        try:
            row = (self._next, time.time(), type(event).__name__, codec.dumps(event))
            with self._connection:
                self._connection.execute("insert into events values (?, ?, ?, ?)", row)
        except (sqlite3.Error, codec.CodecError) as error:
            raise InfraError(f"cannot write {self.path}: {error}") from error
        self._next += 1

    def close(self) -> None:
        super().close()
        os.close(self._lock)


def _is_of_the_path(error: sqlite3.Error) -> bool:
    """Whether SQLite may not use a file or its folder, rather than that it finds no journal there."""
    primary = error.sqlite_errorcode & 0xFF
    return primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def _connect_where_nothing_can_be_written(path: Path) -> sqlite3.Connection:
    """Reads a journal for which SQLite cannot make the index of the log that it keeps beside the file.

    Without a log the file is whole. A killed run leaves one, which counts: then a copy in memory is read.
    """
    log = path.with_name(f"{path.name}-wal")
    if not log.exists():
        uri = f"{path.absolute().as_uri()}?immutable=1"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)
    whole = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory(prefix="kbopt-") as folder:
        for file in (path, log):
            shutil.copyfile(file, Path(folder, file.name))
        with closing(sqlite3.connect(Path(folder, path.name))) as copy:
            copy.backup(whole)
    return whole


def _create(path: Path, config: str) -> None:
    """Under another name first: a reader sees the whole header or no journal, also after a crash."""
    if path.exists():
        raise UserError(
            f"{path} exists and holds another run. Choose another --out or --run-name, "
            f"or continue that run with `kbopt resume {path.parent}`."
        )
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished, timeout=30.0)) as connection:
        _make_durable(connection)
        connection.executescript(_SCHEMA)
        with connection:
            rows = [("format", str(FORMAT_VERSION)), ("config", config)]
            connection.executemany("insert into header values (?, ?)", rows)
    unfinished.rename(path)


def _make_durable(connection: sqlite3.Connection) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")


def _lock(path: Path, wait_s: float = 0.0) -> int:
    descriptor = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise UserError(
                f"another process is writing {path}. Watch it with `kbopt watch {path.parent}`, "
                "or stop it before you resume."
            ) from None
        return descriptor
