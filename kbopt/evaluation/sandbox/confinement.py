"""What a child that runs untrusted code is allowed: where it may read, write, and how much.

The fork server probes once which of these the kernel grants (`Isolation`), and every child gets all of them:
namespaces for processes, mounts, network and System V objects, a user of its own, a filter of system calls,
resource limits, an empty environment but for a short list. A service that is not root's has no other user to
give: its sandboxes are user namespaces, and show none of the folders in which a user keeps things. Where
namespaces are refused, limits and the process tree remain.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import resource
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kbopt
from kbopt.evaluation.sandbox import linux

ALLOWED_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"),
    *("CC", "CXX", "OMP_NUM_THREADS", "TORCH_CUDA_ARCH_LIST", "NVIDIA_VISIBLE_DEVICES"),
    *("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS"),
)
"""Variables that reach the service and its children; none of them holds a secret."""

SCRATCH = Path("/tmp")
LOG_NAME = "service.log"
"""In the service's state folder: what it and its trusted processes print on standard error."""
OOM_TRUSTED = 500
"""A judge goes after the candidates, and before the fork server, which everything else dies with."""
_COVERED = ("/tmp", "/var/tmp", "/dev/shm")
_SYSTEM = ("bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "sbin")
_SHOWN = (*_SYSTEM, "sys", "usr")
"""Folders of the root that belong to the system, and not to any user."""
_DEVICES = ("/dev/fuse", "/dev/userfaultfd")
"""By which a process can serve memory that its reader waits for."""
_LISTS = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")
_FIRST_UID = 61_000
_NUM_UIDS = 4_000


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` reduced to `ALLOWED_VARIABLES`."""
    return {name: environ[name] for name in ALLOWED_VARIABLES if name in environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the kernel grants. `network` means that the child has none.

    `user` is another user than the service's; with `user_namespace` that holds inside only. `calls` means
    that the system calls are refused that `seccomp` lists, `counted` that each start of a process is noticed.
    """

    processes: bool = False
    mounts: bool = False
    network: bool = False
    user: bool = False
    user_namespace: bool = False
    calls: bool = False
    counted: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether a candidate can reach neither the user's files, nor the network, nor other processes."""
        return self.processes and self.mounts and self.network and self.user and self.calls

    def without(self, names: Iterable[str]) -> Isolation:
        return replace(self, **dict.fromkeys(names, False))

    def __str__(self) -> str:
        granted = [name.replace("_", " ") for name, has in asdict(self).items() if has]
        return "isolated " + (", ".join(granted) if granted else "by resource limits and process tree only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`memory_bytes` bounds private memory of all of the child's processes together.

    `address_space` also applies it to each process's address space, which CUDA does not survive.
    """

    memory_bytes: int
    scratch_bytes: int = 2**30
    file_bytes: int = 2**30
    processes: int = 512
    open_files: int = 1024
    address_space: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """One child's sandbox. `scratch` is its only writable folder, `HOME` and working directory.

    With a private mount namespace that is /tmp, empty but for a copy of `build` where one is given;
    without it, `scratch_fallback` is used. `serial` chooses the child's user. `readable`
    are folders to be seen besides the interpreter's. `hidden` are device files that nobody in it can open.
    `without` names the kinds of isolation that the device's driver does not work under.
    """

    limits: Limits
    environ: Mapping[str, str]
    scratch_fallback: str
    serial: int
    build: str = ""
    build_writable: bool = False
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SandboxConfig:
        return cls(**{**raw, "limits": Limits(**raw["limits"])})

    @property
    def uid(self) -> int:
        return _FIRST_UID + self.serial % _NUM_UIDS


def interpreter_paths() -> list[Path]:
    """Folders that Python needs to import lazily, wherever they lie, by each name that they go by.

    Of the folder that holds kbopt, which may be a user's checkout, only kbopt itself.
    """
    package = Path(kbopt.__file__).resolve().parent
    folders = {Path(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if path}
    known = {package}
    for folder in folders:
        is_checkout = folder.resolve() == package.parent and not folder.name.endswith("-packages")
        if folder.is_dir() and not is_checkout:
            known |= {folder.absolute(), folder.resolve()}
    return sorted(known)


def toolchain_paths(environ: Mapping[str, str]) -> list[Path]:
    """Folders in which `environ` says that programs and libraries lie.

    A compiler looks beside them, so the folder around them comes too, unless that is the caller's own or
    everybody's.
    """
    names = [Path(path) for name in _LISTS for path in environ.get(name, "").split(":") if path]
    known: set[Path] = set()
    for folder in names:
        if folder.is_absolute() and folder.is_dir():
            for path in (folder, folder.resolve()):
                around = path.parent
                is_installation = len(around.parts) > 2 and not _is_ours(around)
                known.add(around if is_installation else path)
    return sorted(known)


def mount_privately(config: SandboxConfig, keep: Sequence[Path], isolation: Isolation) -> None:
    """Give the caller's mount namespace its own /tmp, /var/tmp, /dev/shm and /proc.

    Folders that another user cannot pass through (such as a home that holds the interpreter) are covered
    by an empty one, in which only the `keep` folders reappear: whatever else they held is out of sight.
    In a user namespace, where the user's files are the candidate's own, so is every folder that is not the
    system's, and nothing that was there before can be written to.
    """
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    covered = {Path(path) for path in _COVERED if Path(path).is_dir()}
    hidden = [*config.hidden, *(device for device in _DEVICES if Path(device).exists())]
    if isolation.user_namespace:
        covered |= homes() | _folders_of_users()
        keep = [path for path in keep if not any(home.is_relative_to(path) for home in homes())]
        hidden += [str(path) for path in Path("/").iterdir() if path.is_file() and _is_ours(path)]
        linux.make_read_only()
    else:
        needed = [*keep, Path(config.build)] if config.build else keep
        covered |= {closed for path in needed if (closed := closed_ancestor(path)) is not None}
    size_bytes = config.limits.scratch_bytes
    outermost = _outermost(covered)
    for folder in outermost:
        inside = [path for path in (*covered, Path(config.build)) if path.is_relative_to(folder)]
        cover(folder, [path for path in keep if path.is_relative_to(folder)], size_bytes, inside)
    for folder in sorted(covered - set(outermost)):
        if str(folder) in _COVERED:
            cover(folder, [], size_bytes)
    _hide(hidden)
    if isolation.user_namespace:
        for folder in outermost:
            if str(folder) not in _COVERED:
                linux.set_read_only(str(folder))


def mount_proc() -> None:
    """Replace /proc by that of the caller's process namespace."""
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Those that lie in none of the others."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


@functools.cache
def homes() -> frozenset[Path]:
    """The home of the service's user, by the name that the system knows and by the one that it resolves to.

    To be called first where that user and the network are still there.
    """
    with contextlib.suppress(KeyError):
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        if home.is_dir():
            return frozenset({home, home.resolve()} - {Path("/")})
    return frozenset()


def _folders_of_users() -> set[Path]:
    """Folders of the root that are not the system's, and what a user owns in places of the system's."""
    folders = {path for path in Path("/").iterdir() if path.name not in _SHOWN and path.is_dir()}
    places = [Path(place) for place in ("/etc", "/opt", "/usr", "/usr/local") if Path(place).is_dir()]
    folders |= {path for place in places for path in place.iterdir() if path.is_dir() and _is_ours(path)}
    return {path for path in folders if not path.is_symlink()}


def _is_ours(path: Path) -> bool:
    return path.stat().st_uid == os.geteuid()


def closed_ancestor(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that other users cannot pass through."""
    for ancestor in reversed(path.parents):
        if not ancestor.stat().st_mode & stat.S_IXOTH:
            return ancestor
    return None


def cover(folder: Path, keep: Iterable[Path], size_bytes: int, inside: Iterable[Path] = ()) -> None:
    """Lay an empty folder over `folder` that shows only `keep`, with places to mount what goes `inside`."""
    kept = [(path, os.open(path, os.O_PATH)) for path in _outermost(keep)]
    mode = "1777" if str(folder) in _COVERED else "0755"
    options = f"mode={mode},size={size_bytes}"
    linux.mount("tmpfs", str(folder), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    for path, fd in kept:
        path.mkdir(parents=True, exist_ok=True)
        linux.mount(f"/proc/self/fd/{fd}", str(path), flags=linux.MS_BIND | linux.MS_REC)
        os.close(fd)
    for path in inside:
        path.mkdir(parents=True, exist_ok=True)


def _hide(files: Iterable[str]) -> None:
    """Lay a file over each that nobody may open. The driver takes such a device for somebody else's."""
    nothing = SCRATCH / "nothing"
    nothing.touch(mode=0)
    for file in files:
        linux.mount(str(nothing), file, flags=linux.MS_BIND)
    nothing.unlink()


def place_build(config: SandboxConfig, folder_fd: int, isolation: Isolation) -> None:
    """Show the build folder behind `folder_fd` where it was, after its surroundings were covered.

    Only the child that builds writes to the folder itself; others get a copy of their own, so that a
    candidate that writes beside its library harms nobody and leaves nothing behind.
    """
    target = Path(config.build)
    target.mkdir(parents=True, exist_ok=True)
    source = Path(f"/proc/self/fd/{folder_fd}")
    if not config.build_writable:
        copy = SCRATCH / "build"
        shutil.copytree(source, copy, symlinks=True)
        if isolation.user:
            for path in (copy, *copy.rglob("*")):
                os.chown(path, config.uid, config.uid, follow_symlinks=False)
        source = copy
    linux.mount(str(source), str(target), flags=linux.MS_BIND)
    if config.build_writable and isolation.user_namespace:
        linux.set_read_only(str(target), False)


def apply_limits(limits: Limits) -> None:
    """Set the caller's resource limits, soft and hard."""
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes,
    }
    if limits.address_space:
        bounds[resource.RLIMIT_AS] = limits.memory_bytes
    for kind, value in bounds.items():
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def become_nobody(uid: int, isolation: Isolation) -> None:
    """Continue as user and group `uid`, which owns nothing, with no way back."""
    if not isolation.user_namespace:  # In one, nobody may change groups.
        os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def prefer_for_oom_kill(score: int = 1000) -> None:
    """Have the kernel end this process before those of a lower score when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def replace_environment(environ: Mapping[str, str]) -> None:
    """The caller's environment becomes exactly `environ`, for C code too."""
    os.environ.clear()
    os.environ.update(environ)


def close_other_fds(keep: Iterable[int]) -> None:
    """Close every descriptor above standard error but those in `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
