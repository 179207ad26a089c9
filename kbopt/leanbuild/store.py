"""A directory of finished builds, named by a hash of what they were built from.

Layout under `root`: `entries/<key>/` holds `entry.json` and `files/`, `staging/` holds unfinished builds, and
`locks/<key>` is the lock of the builders of one key. An entry appears by one `rename` and never changes, so
readers need no lock. A killed build leaves only a staging directory, which a later `prune` removes. Locks are
flock(2)s, which the kernel releases when the process ends.

A candidate never writes into entries. Its build runs in a staging directory, and the trusted caller copies
the result to the key of that candidate's source (`publish`). So a hostile build can forge only its own entry.
Readers have no write permission, and `verify` compares each file with its hash at publication.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kbopt.core.errors import InfraError

DEFAULT_LIMIT_BYTES = 20 * 2**30
"""Bytes of the entries of a store, above which it is pruned."""
MAX_LOG_CHARACTERS = 200_000
STALE_STAGING_S = 3600.0
"""Age in seconds from which on a staging directory is removed. No build may take so long."""
MAX_ENTRY_BYTES = 512 * 2**20
MAX_FILES = 10_000
MAX_DEPTH = 32
"""Bytes, files and nested folders of one entry at most."""
_LOCKS = ("lock",)
"""Lock files of torch's own builds. They are not kept, because a process that finds one waits for its end."""
PRUNE_SHARE = 0.01
PRUNE_EVERY = 1000
"""A process prunes after it has published this share of the limit, or this many entries. To prune takes 17 us
per entry; after each publication that was most of the time from a thousand entries on."""

FORMAT = 2
"""Version of an entry's format. It is part of the key, so entries of other formats are never found."""


def build_key(source: str, *, flags: Mapping[str, str], toolchain_key: str) -> str:
    """Return the key of the build of `source`: a SHA-256 of everything that the result depends on."""
    flags = dict(sorted(flags.items()))
    parts = {"format": FORMAT, "source": source, "flags": flags, "toolchain": toolchain_key}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class TooMuchLeft(Exception):
    """A build left more files than an entry may hold. The message is for the proposer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A finished build.

    `ok` is False if the source cannot be built, with the lasting `reason`. `log` is the compiler's output.
    `files` maps the path of each file under `directory` to its SHA-256. `seconds` is the build's wall-clock
    time.
    """

    key: str
    ok: bool
    reason: str
    log: str
    seconds: float
    directory: Path
    files: Mapping[str, str]
    size_bytes: int


class Store:
    """A store of builds. Processes, runs and users may share `root`. All methods may run concurrently."""

    def __init__(self, root: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._bytes_since_prune = float("inf")
        self._entries_since_prune = 0
        for name in ("entries", "staging", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Entry | None:
        """Return the entry of `key`, or None. This counts as a use for eviction."""
        directory = self._entry(key)
        try:
            entry = _read(directory, key)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, NotADirectoryError):
            # A full disk or a crash of the machine can damage an entry. It is then removed.
            self._remove_entry(key)
            return None
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(directory)
        return entry

    @contextlib.contextmanager
    def building(self, key: str) -> Iterator[Entry | None]:
        """Hold the lock of `key`, and yield its entry if another builder finished it meanwhile, else None.

        It blocks while another process that lives builds the same key. If None is yielded, build and call
        `publish` in the context.
        """
        with self._locked(key):
            yield self.find(key)

    def staging(self) -> Path:
        """Return a new empty directory in the store, for one build. The caller removes it."""
        directory = self.root / "staging" / secrets.token_hex(16)
        directory.mkdir(mode=0o700)
        return directory

    def publish(
        self, key: str, built: Path, *, ok: bool, log: str, seconds: float, reason: str = ""
    ) -> Entry:
        """Copy the regular files under `built` into a new entry and return it.

        Links, devices and sockets are left out: a link could name a file that the candidate may not read. If
        another builder published `key` first, its entry stays and is returned. Raises TooMuchLeft and
        InfraError.
        """
        private = self.staging()
        try:
            files = _copy_regular_files(built, private / "files")
            size_bytes = sum((private / "files" / name).stat().st_size for name in files)
            record = {
                "key": key,
                "ok": ok,
                "reason": reason[:MAX_LOG_CHARACTERS],
                "log": log[:MAX_LOG_CHARACTERS],
                "seconds": seconds,
                "files": files,
                "size_bytes": size_bytes,
            }
            (private / "entry.json").write_text(json.dumps(record))
            _make_read_only(private)
            try:
                private.rename(self._entry(key))
            except OSError:
                if not self._entry(key).is_dir():
                    raise
        finally:
            remove(private)
        entry = self.find(key)
        if entry is None:
            raise InfraError(f"build {key} vanished from {self.root} right after it was published")
        self._bytes_since_prune += entry.size_bytes
        self._entries_since_prune += 1
        is_much = self._bytes_since_prune >= PRUNE_SHARE * self.limit_bytes
        if is_much or self._entries_since_prune >= PRUNE_EVERY:
            self.prune(keep=key)
        return entry

    def verify(self, entry: Entry) -> None:
        """Compare each file of `entry` with its hash at publication. Raises InfraError if one has changed."""
        for name, expected in entry.files.items():
            seen = _sha256(entry.directory / name)
            if seen != expected:
                raise InfraError(
                    f"{entry.directory / name} has changed since it was built (SHA-256 {seen}, "
                    f"published {expected}); remove {entry.directory.parent} and check who may write there"
                )

    def prune(self, *, keep: str = "") -> int:
        """Remove the least recently used entries until the store fits its limit. Return their number.

        Entries that are locked by `building` stay. Stale staging directories are removed as well.
        """
        self._bytes_since_prune, self._entries_since_prune = 0.0, 0
        self._remove_stale_staging()
        entries = sorted(self._entries_by_use())
        total_bytes = sum(size for _, size, _ in entries)
        evicted = 0
        for _, size_bytes, key in entries:
            if total_bytes <= self.limit_bytes:
                break
            if key != keep and self._evict(key):
                total_bytes -= size_bytes
                evicted += 1
        return evicted

    def _entry(self, key: str) -> Path:
        if not key or not all(character in "0123456789abcdef" for character in key):
            raise ValueError(f"a build key is lower-case hexadecimal, seen {key!r}")
        return self.root / "entries" / key

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        with self._lock_file(key) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _lock_file(self, key: str) -> BinaryIO:
        self._entry(key)
        return (self.root / "locks" / key).open("ab")

    def _entries_by_use(self) -> Iterator[tuple[float, int, str]]:
        for directory in (self.root / "entries").iterdir():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                used = directory.stat().st_mtime
                record = json.loads((directory / "entry.json").read_text())  # of any format
                yield used, record["size_bytes"], directory.name

    def _evict(self, key: str) -> bool:
        with self._lock_file(key) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return self._remove_entry(key)

    def _remove_entry(self, key: str) -> bool:
        """Rename an entry, so that no reader sees a part of it, and remove it. Return whether it existed."""
        renamed = self.root / "staging" / secrets.token_hex(16)
        try:
            self._entry(key).rename(renamed)
        except FileNotFoundError:
            return False
        remove(renamed)
        return True

    def _remove_stale_staging(self) -> None:
        # Only the age tells: the builder may live in another container, where pids mean something else.
        for directory in (self.root / "staging").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - directory.stat().st_mtime > STALE_STAGING_S:
                    remove(directory)


def _read(directory: Path, key: str) -> Entry:
    record = json.loads((directory / "entry.json").read_text())
    return Entry(
        key=key,
        ok=record["ok"],
        reason=record["reason"],
        log=record["log"],
        seconds=record["seconds"],
        directory=directory / "files",
        files=record["files"],
        size_bytes=record["size_bytes"],
    )


def _copy_regular_files(source: Path, target: Path) -> dict[str, str]:
    """Copy regular files without following links. Return the SHA-256 of each by its relative path.

    Files that cannot be read and torch's lock files are left out. Raises TooMuchLeft.
    """
    target.mkdir()
    hashes: dict[str, str] = {}
    left_bytes = MAX_ENTRY_BYTES
    for folder, _, names in os.walk(source, followlinks=False):
        depth = len(Path(folder).relative_to(source).parts)
        if depth > MAX_DEPTH or len(hashes) + len(names) > MAX_FILES:
            raise TooMuchLeft(f"its build leaves more than {MAX_FILES} files or {MAX_DEPTH} nested folders")
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(source)
            # With O_NOFOLLOW no link can take a file's place before it is opened, and with O_NONBLOCK a named
            # pipe does not block.
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            with os.fdopen(descriptor, "rb") as reader:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or name in _LOCKS:
                    continue
                left_bytes -= status.st_size
                if left_bytes < 0:
                    raise TooMuchLeft(f"its build leaves files of more than {MAX_ENTRY_BYTES >> 20} MiB")
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                with (target / relative).open("xb") as writer:
                    shutil.copyfileobj(reader, writer)
            hashes[relative.as_posix()] = _sha256(target / relative)
    return hashes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_read_only(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            (Path(folder) / name).chmod(0o555)
        Path(folder).chmod(0o755)


def remove(directory: Path) -> None:
    """Remove a directory as far as possible. Errors are ignored."""
    # rmtree recurses, so it fails for thousands of nested folders. `rm` does not.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if os.path.lexists(directory):
        subprocess.run(["rm", "-rf", "--", str(directory)], check=False, stderr=subprocess.DEVNULL)
