"""Host memory as a budget: what the service may use, what is used, and who may start.

No torch here. `find_host` reads files only, `Budget` counts; neither starts or ends a process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import InfraError, UserError

GIB = 2**30
MARGIN = 0.05
"""Share of the limit that stays free: the kernel's own tables, page cache that is in use, estimates."""
SERVICE_BYTES = int(0.4 * GIB)
"""The supervisor (24 MiB of its own) and the zygote with an imported torch (190 MiB), whose memory its forks
share. Measured as PSS, torch for the CPU; more than that, for whatever the libraries map later."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes: `judge` stays held when the request is over, `own` does not."""

    own: int
    judge: int


class Budget:
    """Grants requests what they need of `host`'s memory, in the order in which they ask.

    A request has one reservation, made before anything of it starts, so none waits for another that waits for
    it. `close_idle` ends the judge that was used least recently of those whose key is not among the given
    ones, and says whether there was one; it may be called from any request's thread. At most `most` run.
    """

    def __init__(self, host: Host, most: int, close_idle: Callable[[Collection[Hashable]], bool]) -> None:
        self.host = host
        self._most = most
        self._close_idle = close_idle
        self._changed = threading.Condition()
        self._waiting: deque[Reservation] = deque()
        self._active: list[Reservation] = []
        self._judges: dict[Hashable, int] = {}
        self._others_bytes = max(SERVICE_BYTES, host.used_bytes())

    @property
    def available_bytes(self) -> int:
        """For requests, were there nothing else on the host."""
        return self.host.usable_bytes - SERVICE_BYTES

    @contextmanager
    def reserve(
        self, key: Hashable, what: str, need: Callable[[], Need], *, alone: bool = False
    ) -> Iterator[Reservation]:
        """While within, `need` is there; where `alone`, nobody else has a reservation and no judge is kept.

        `need` is asked when it is this request's turn. Raises UserError where it is more than there can ever
        be, InfraError where other processes of the machine hold it.
        """
        mine = Reservation(self, key, what, alone)
        with self._changed:
            self._waiting.append(mine)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting[0] is mine and self._may_start(mine))
            mine.need = need()
            while not self._granted(mine):
                self._make_room_or_wait(mine)
        finally:
            with self._changed:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield mine
        finally:
            with self._changed:
                self._active.remove(mine)
                self._changed.notify_all()

    def forget(self, key: Hashable) -> None:
        """The judge of `key` has ended."""
        with self._changed:
            self._judges.pop(key, None)
            self._changed.notify_all()

    def grow(self, mine: Reservation, need: Need) -> None:
        """`mine`, which is in use, turns out to need as much: idle judges make room. Raises as `reserve`."""
        mine.need = Need(own=max(mine.need.own, need.own), judge=need.judge)
        with self._changed:
            self._judges[mine.key] = need.judge
        while self._missing_bytes() > 0:
            if self._close_idle(self._keys_in_use()):
                continue
            with self._changed:
                if len(self._active) > 1:
                    return  # Only on a GPU, where data of tasks are not on the host.
            self._refuse(mine)

    def _may_start(self, mine: Reservation) -> bool:
        if any(active.alone for active in self._active):
            return False
        return not self._active if mine.alone else len(self._active) < self._most

    def _granted(self, mine: Reservation) -> bool:
        with self._changed:
            if not self._active:
                self._others_bytes = max(SERVICE_BYTES, self.host.used_bytes() - sum(self._judges.values()))
            if mine.alone and self._judges:
                return False
            extra = mine.need.own + mine.need.judge - self._judges.get(mine.key, 0)
            if self._missing_unlocked(extra) > 0:
                return False
            self._judges[mine.key] = max(mine.need.judge, self._judges.get(mine.key, 0))
            self._active.append(mine)
            return True

    def _make_room_or_wait(self, mine: Reservation) -> None:
        keep = self._keys_in_use() | (set() if mine.alone else {mine.key})
        if self._close_idle(keep):
            return
        with self._changed:
            if mine.alone:
                self._judges.clear()  # Judges that died by themselves.
            if self._active:
                self._changed.wait(1.0)
                return
            # Nothing is in use, and no judge is kept but perhaps its own.
            self._judges = {key: held for key, held in self._judges.items() if key == mine.key}
            extra = mine.need.own + mine.need.judge - self._judges.get(mine.key, 0)
            if self._missing_unlocked(extra) <= 0:
                return
        self._refuse(mine)

    def _keys_in_use(self) -> set[Hashable]:
        with self._changed:
            return {active.key for active in self._active}

    def _missing_bytes(self) -> int:
        with self._changed:
            return self._missing_unlocked(0)

    def _missing_unlocked(self, extra: int) -> int:
        held = sum(self._judges.values()) + sum(active.need.own for active in self._active)
        return self._others_bytes + held + extra - self.host.usable_bytes

    def _refuse(self, mine: Reservation) -> None:
        needed = mine.need.own + mine.need.judge
        figures = (
            f"judging {mine.what} needs {gib(needed)} of host memory, and it may use "
            f"{gib(self.available_bytes)} of {gib(self.host.limit_bytes)}, {self.host.source}"
        )
        if needed > self.available_bytes:
            raise UserError(f"{figures}; {REMEDY}")
        others = gib(self._others_bytes - SERVICE_BYTES)
        raise InfraError(f"{figures}; other processes use {others} of it: end them, or try again later")


REMEDY = "make the task's inputs smaller, use a machine with more memory, or raise --memory-gib"


class Reservation:
    """What one request may use. `alone`: no other has one at the same time."""

    def __init__(self, budget: Budget, key: Hashable, what: str, alone: bool) -> None:
        self._budget = budget
        self.key = key
        self.what = what
        self.alone = alone
        self.need = Need(own=0, judge=0)

    def grow(self, need: Need) -> None:
        self._budget.grow(self, need)
