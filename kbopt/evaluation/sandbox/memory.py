"""Host memory: what the service may use, what is used, and how its want is told. Reads files only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import InfraError, UserError

GIB = 2**30
MARGIN = 0.05
"""Share of the limit that stays free: the kernel's own tables, page cache that is in use, estimates."""
SERVICE_BYTES = int(0.4 * GIB)
"""The supervisor (24 MiB of its own) and the fork server with an imported torch (190 MiB), whose memory its
forks share. Measured as PSS, torch for the CPU; more than that, for whatever the libraries map later."""
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


class KilledForMemory(InfraError):
    """The kernel ended a process because memory ran out: neither the task nor the candidate is to blame,
    unless it happens to a request that runs alone. `of_judge` tells a trusted process from a candidate's own.
    """

    def __init__(self, what: str, *, of_judge: bool) -> None:
        super().__init__(f"{what} was killed because memory ran out")
        self.of_judge = of_judge


def is_out_of_memory(text: str) -> bool:
    """Whether an exception of torch's or Python's, as a text, says that memory could not be had."""
    return any(words in text for words in _NO_MEMORY)


def gib(size_bytes: float) -> str:
    """For messages."""
    return f"{size_bytes / GIB:.2f} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The memory that the service may use, `source` in words. `cgroup` is the folder that sets the limit;
    `explicit` that the user did, so that what others use does not count.
    """

    limit_bytes: int
    source: str
    root: Path
    cgroup: Path | None = None
    explicit: bool = False
    counters: tuple[Path, ...] = ()

    @property
    def usable_bytes(self) -> int:
        return int(self.limit_bytes * (1 - MARGIN))

    def used_bytes(self) -> int:
        """By everything that the limit holds for; of an explicit one, what the service takes by itself."""
        if self.explicit:
            return SERVICE_BYTES
        if self.cgroup is None:
            memory = _meminfo(self.root)
            return memory["MemTotal"] - memory["MemAvailable"]
        for usage, inactive in (
            ("memory.current", "inactive_file"),
            ("memory.usage_in_bytes", "total_inactive_file"),
        ):
            if (self.cgroup / usage).exists():
                used_bytes = int((self.cgroup / usage).read_text())
                return max(0, used_bytes - _fields(self.cgroup / "memory.stat").get(inactive, 0))
        return 0

    def num_kills(self) -> int:
        """How many processes the kernel has killed because memory ran out, here or on the whole machine."""
        return sum(_fields(file).get("oom_kill", 0) for file in self.counters)


def find_host(memory_gib: float | None = None, root: Path = Path("/")) -> Host:
    """The tightest limit of the process's own cgroup and those around it, or the machine's memory.

    `memory_gib` is the user's own figure instead. Raises UserError where it is none.
    """
    groups = _cgroups(root)
    counters = tuple(
        file
        for file in (
            *(group / name for group in groups for name in ("memory.events", "memory.oom_control")),
            root / "proc/vmstat",
        )
        if file.exists()
    )
    if memory_gib is not None:
        if not memory_gib > 0:
            raise UserError(f"--memory-gib {memory_gib:g}: give a number of GiB above 0")
        limit_bytes = int(memory_gib * GIB)
        return Host(
            limit_bytes=limit_bytes, source="--memory-gib", root=root, explicit=True, counters=counters
        )
    total_bytes = _meminfo(root)["MemTotal"]
    limits = [(limit, group) for group in groups if (limit := _limit_of(group)) is not None]
    limit_bytes, group = min(limits, default=(total_bytes, None), key=lambda found: found[0])
    if group is None or limit_bytes >= total_bytes:
        return Host(limit_bytes=total_bytes, source="the machine's memory", root=root, counters=counters)
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    source = f"the container's limit, {group / name}"
    return Host(limit_bytes=limit_bytes, source=source, root=root, cgroup=group, counters=counters)


def _cgroups(root: Path) -> list[Path]:
    """The folders of the process's memory cgroup and of those around it, innermost first."""
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
        # In a container the path may be that of the host, and the mount the container's own.
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
