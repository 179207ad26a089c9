"""Notices other evaluators that time on the same device of this machine, which disturbs the times of both.

Each service locks a byte of one file while it times: another process finds the lock, and whose it is. A
record lock (fcntl(2)) ends with its process, so nothing has to be cleaned up. Services of other users and
with other state folders see it, but none in a container with a /dev/shm of its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOTE = "Another kbopt evaluator"
"""The first words of the note, by which a backend recognises it."""
_FOLDER = Path("/dev/shm")
_TEXT_BYTES = 20
"""Bytes at the start of the file for the number of the process that began to time last."""
_FLOCK = "hhqqi"
"""The C struct flock of Linux: type, whence, start, length and process, in native sizes and alignment."""


class Neighbours:
    """The evaluators on a device of that name. Where the file cannot be used, none is ever noticed."""

    def __init__(self, device: str, *, on_cuda: bool, folder: Path = _FOLDER) -> None:
        self._on_cuda = on_cuda
        name = re.sub(r"\W+", "-", device)
        self._fd = _opened(folder / f"kbopt-timing-{name}")
        self._noticed = 0

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Tell others that this process times in the context. Afterwards `note` speaks of whoever did too."""
        self._noticed = 0
        if self._fd < 0:
            yield
            return
        own = os.getpid()
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _TEXT_BYTES + own)
        try:
            self._noticed = self._holder()
            os.pwrite(self._fd, f"{own:<{_TEXT_BYTES}}".encode(), 0)
            yield
            written = os.pread(self._fd, _TEXT_BYTES, 0).strip()  # Any user may have written to the file.
            began_last = int(written) if written.isdigit() else own
            if began_last != own and self._shares_cores(began_last):
                self._noticed = began_last
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _TEXT_BYTES + own)

    @property
    def note(self) -> str:
        """A sentence about who timed on the device during the latest `noticed`, or ""."""
        if not self._noticed:
            return ""
        device, remedy = "CPU", "give each cores of its own, as by taskset"
        if self._on_cuda:
            device, remedy = "GPU", "give each a GPU of its own, as by --device cuda:1"
        return (
            f"{NOTE} (process {self._noticed}) timed on this {device} at the same time, which disturbs the "
            f"times of both. Run one after the other, or {remedy}."
        )

    def _holder(self) -> int:
        """Return the number of a process that times on the device and shares its cores, or 0."""
        start = _TEXT_BYTES
        while True:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, 0, 0)
            kind, _, at, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
            if kind == fcntl.F_UNLCK:
                return 0
            if self._shares_cores(pid):
                return int(pid)
            start = at + 1

    def _shares_cores(self, pid: int) -> bool:
        """Return whether a process may run where this one does. Of one that has ended nothing is known."""
        if self._on_cuda:
            return True
        with suppress(OSError):
            return bool(os.sched_getaffinity(pid) & os.sched_getaffinity(0))
        return True


def _opened(path: Path) -> int:
    """Return a descriptor of the file, which all users may use, or -1."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(OSError):
        return os.open(path, flags)  # Linux lets nobody "create" a file of another user's in such a folder.
    with suppress(OSError):
        fd = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(fd, 0o666)
        return fd
    return -1
