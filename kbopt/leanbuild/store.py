"""A directory of finished builds, named by what they were built from.

Layout under `root`: `entries/<key>/` holds `entry.json` and `files/`; `staging/` holds builds under
way; `locks/<key>` orders builders of one key. An entry appears by one `rename` and never changes, so a
reader needs no lock to see a whole one, and a killed build leaves only a staging directory, which the
next `prune` removes. Locks are `flock`s: the kernel drops them with the process that held them.

A candidate never writes here. Its build runs in a private directory of its own user, and the trusted
caller copies the result in under the key of *that* candidate's source (`publish`), so that the most a
hostile build can do is to forge its own entry. Readers get entries without write permission, and
`verify` compares every file with the hash taken at publication.
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
MAX_LOG_CHARACTERS = 200_000
# Longer than any build may take.
STALE_STAGING_S = 3600.0
MAX_ENTRY_BYTES = 512 * 2**20
MAX_FILES = 10_000
MAX_DEPTH = 32
_LOCKS = ("lock",)
"""Of torch's own builds; a process that finds one waits for whoever holds it."""
PRUNE_SHARE = 0.01
PRUNE_EVERY = 1000
"""A process looks at all entries again after it has published this share of the limit, or this many: a look
takes 17 us an entry, which at each publication was more than all else from a thousand entries on."""

FORMAT = 2
"""Counts the changes to what an entry holds; entries of another format are never looked up."""


def build_key(source: str, *, flags: Mapping[str, str], toolchain_key: str) -> str:
    """The name of the build of `source`: SHA-256 over everything that can change its result."""
    flags = dict(sorted(flags.items()))
    parts = {"format": FORMAT, "source": source, "flags": flags, "toolchain": toolchain_key}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class TooMuchLeft(Exception):
    """A build left more than an entry holds. The message is for the proposer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A finished build. `ok` is False where the source cannot be built, for a `reason` that will stay.

    `log` holds what the compiler printed.
    `files` maps the path of each file under `directory` to its SHA-256. `seconds` is the wall clock
    that the build took when it was made.
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
    """Shared by processes, runs and users of `root`; every method may be called concurrently."""

    def __init__(self, root: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._bytes_since_prune = float("inf")
        self._entries_since_prune = 0
        for name in ("entries", "staging", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Entry | None:
        """The entry of `key`, or None. Counts as a use for eviction."""
        directory = self._entry(key)
        try:
            entry = _read(directory, key)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, NotADirectoryError):
            # Damaged, as a full disk or a fallen machine leaves it: as good as none.
            self._bury(key)
            return None
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(directory)
        return entry

    @contextlib.contextmanager
    def building(self, key: str) -> Iterator[Entry | None]:
        """Orders builders of one key: yields what another builder finished meanwhile, else None.

        Blocks while another process builds the same key, for as long as that process lives and no
        longer. Inside the block the caller builds and calls `publish`.
        """
        with self._locked(key):
            yield self.find(key)

    def staging(self) -> Path:
        """A new empty directory on the store's file system, for one build; the caller removes it."""
        directory = self.root / "staging" / secrets.token_hex(16)
        directory.mkdir(mode=0o700)
        return directory

    def publish(
        self, key: str, built: Path, *, ok: bool, log: str, seconds: float, reason: str = ""
    ) -> Entry:
        """Copies the regular files under `built` into a new entry and returns it.

        Links, devices and sockets that the build left are not followed and not copied: they could name
        files that the candidate itself may not read. If another builder published `key` first, its
        entry stays and is returned. Raises TooMuchLeft.
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
        """Raises `InfraError` if a file of `entry` is not what was published."""
        for name, expected in entry.files.items():
            seen = _sha256(entry.directory / name)
            if seen != expected:
                raise InfraError(
                    f"{entry.directory / name} has changed since it was built (SHA-256 {seen}, "
                    f"published {expected}); remove {entry.directory.parent} and check who may write there"
                )

    def prune(self, *, keep: str = "") -> int:
        """Evicts the least recently used entries until the store fits; returns how many went.

        An entry that somebody is `building` is skipped. Staging directories of builders
        that are gone are removed as well.
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
            return self._bury(key)

    def _bury(self, key: str) -> bool:
        """Remove an entry; renamed first, so that no reader ever sees half of one. Whether it was there."""
        grave = self.root / "staging" / secrets.token_hex(16)
        try:
            self._entry(key).rename(grave)
        except FileNotFoundError:
            return False
        remove(grave)
        return True

    def _remove_stale_staging(self) -> None:
        # By age alone: a process id says nothing about a builder in another container on this volume.
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
    """Copies `source` without following links; returns the SHA-256 of each file by relative path.

    Leaves out what cannot be read, and locks, for which nobody is left to open them. Raises TooMuchLeft.
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
            # O_NOFOLLOW closes the gap between looking at a file and opening it; O_NONBLOCK keeps a
            # named pipe from holding us up.
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
    """Whatever a build left there; what resists stays."""
    # Folders nested by the thousand are too many for rmtree, which recurses.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if os.path.lexists(directory):
        subprocess.run(["rm", "-rf", "--", str(directory)], check=False, stderr=subprocess.DEVNULL)
