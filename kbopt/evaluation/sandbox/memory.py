"""Host memory: the service's limit, the memory in use, and signs that it ran out. Reads files only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kbopt.core.errors import InfraError, UserError

GIB = 2**30
MARGIN = 0.05
"""Share of the limit that stays free: for the kernel's tables, page cache in use, and errors of estimates."""
SERVICE_BYTES = int(0.4 * GIB)
"""Bytes for the supervisor (24 MiB) and for the fork server with torch imported (190 MiB), whose memory
its forks share. Both were measured as PSS with torch for the CPU; the rest is for what the libraries map
later."""
REMEDY = "make the task's inputs smaller, use a machine with more memory, or raise --memory-gib"
_NO_MEMORY = (
    "can't allocate memory",
    "MemoryError",
    "Cannot allocate memory",
    "bad_alloc",
    "out of memory",
    "OutOfMemoryError",
)
_UNLIMITED_BYTES = 2**60
"""A larger limit means none: cgroup v1 writes a number near 2**63 for no limit."""


class KilledForMemory(InfraError):
    """The kernel killed a process because memory ran out.

    The task or the candidate is to blame only if the request ran alone. `of_judge` says that the process was
    a trusted one and not the candidate's.
    """

    def __init__(self, what: str, *, of_judge: bool) -> None:
        super().__init__(f"{what} was killed because memory ran out")
        self.of_judge = of_judge


def is_out_of_memory(text: str) -> bool:
    """Return whether the text of an exception of torch or Python says that memory ran out."""
    return any(words in text for words in _NO_MEMORY)


def gib(size_bytes: float) -> str:
    """Format a size for messages, in GiB."""
    return f"{size_bytes / GIB:.2f} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The memory that the service may use.

    `source` says in words where the limit comes from. `used_bytes` returns the bytes in use by all processes
    under the limit. `counters` are the files with the kernel's count of processes that it killed for memory.
    """

    limit_bytes: int
    source: str
    used_bytes: Callable[[], int]
    counters: tuple[Path, ...]

    @property
    def usable_bytes(self) -> int:
        return int(self.limit_bytes * (1 - MARGIN))

    def num_kills(self) -> int:
        """Return a count that grows when the kernel kills a process for memory, here or on the machine."""
        return sum(_fields(file).get("oom_kill", 0) for file in self.counters)


def find_host(memory_gib: float | None = None, root: Path = Path("/")) -> Host:
    """Return the tightest limit of the process's cgroup and its ancestors, or the machine's memory.

    `memory_gib` is the user's own limit, in GiB. Memory of other programs does not count then. Raises
    UserError if it is not above 0.
    """
    groups = _cgroups(root)
    files = [group / name for group in groups for name in ("memory.events", "memory.oom_control")]
    counters = tuple(file for file in (*files, root / "proc/vmstat") if file.exists())
    limit_bytes, source = _meminfo(root)["MemTotal"], "the machine's memory"
    used_bytes: Callable[[], int] = partial(_used_on_machine, root)
    if memory_gib is not None:
        if not memory_gib > 0:
            raise UserError(f"--memory-gib {memory_gib:g}: give a number of GiB above 0")
        limit_bytes, source = int(memory_gib * GIB), "--memory-gib"
        used_bytes = _service_bytes
    else:
        for group in groups:
            limit = _limit_of(group)
            if limit is not None and limit < limit_bytes:
                name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
                limit_bytes, source = limit, f"the container's limit, {group / name}"
                used_bytes = partial(_used_in_cgroup, group)
    return Host(limit_bytes=limit_bytes, source=source, used_bytes=used_bytes, counters=counters)


def _service_bytes() -> int:
    return SERVICE_BYTES  # Other programs have memory of their own, says the user.


def _used_on_machine(root: Path) -> int:
    memory = _meminfo(root)
    return memory["MemTotal"] - memory["MemAvailable"]


def _used_in_cgroup(group: Path) -> int:
    for usage, inactive in (
        ("memory.current", "inactive_file"),
        ("memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (group / usage).exists():
            used_bytes = int((group / usage).read_text())
            return max(0, used_bytes - _fields(group / "memory.stat").get(inactive, 0))
    return 0


def _cgroups(root: Path) -> list[Path]:
    """Return the folders of the process's memory cgroup and its ancestors, innermost first."""
    found: list[Path] = []
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.exists() else ():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
        elif number == "0":
            mount = root / "sys/fs/cgroup"
        else:
            continue
        folder = mount / path.lstrip("/")
        # In a container the path may be the host's although the mount is the container's.
        folder = folder if folder.is_dir() else mount
        found += [group for group in (folder, *folder.parents) if group.is_relative_to(mount)]
    return found


def _limit_of(group: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        file = group / name
        if file.exists() and (text := file.read_text().strip()) != "max":
            return int(text) if int(text) < _UNLIMITED_BYTES else None
    return None


def _fields(file: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}


def _meminfo(root: Path) -> dict[str, int]:
    lines = (root / "proc/meminfo").read_text().splitlines()
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {"MemAvailable": found.get("MemFree", 0), **found}
