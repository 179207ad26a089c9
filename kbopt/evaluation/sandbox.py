"""What a child that runs untrusted code is allowed: where it may read, write, and how much.

The zygote probes once which of these the kernel grants (`Isolation`), and every child gets all of them:
namespaces for processes, mounts, network and System V objects, a user of its own, resource limits, an
empty environment but for a short list. Where namespaces are refused, limits and the process tree remain.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kbopt.evaluation import linux

ALLOWED_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"),
    *("CC", "CXX", "OMP_NUM_THREADS", "TORCH_CUDA_ARCH_LIST", "NVIDIA_VISIBLE_DEVICES"),
    *("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS"),
)
"""Variables that reach the service and its children; none of them holds a secret."""

SCRATCH = Path("/tmp")
_COVERED = ("/tmp", "/var/tmp", "/dev/shm")
_FIRST_UID = 61_000
_NUM_UIDS = 4_000


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` reduced to `ALLOWED_VARIABLES`."""
    return {name: environ[name] for name in ALLOWED_VARIABLES if name in environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the kernel grants. `network` means that the child has none."""

    processes: bool
    mounts: bool
    network: bool
    user: bool

    def without(self, names: Iterable[str]) -> Isolation:
        return replace(self, **dict.fromkeys(names, False))

    def __str__(self) -> str:
        granted = [name for name, has in asdict(self).items() if has]
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
    """Folders that Python needs to import lazily, wherever they lie."""
    candidates = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return sorted({Path(path).resolve() for path in candidates if path and Path(path).is_dir()})


def mount_privately(config: SandboxConfig, keep: Sequence[Path]) -> None:
    """Give the caller's mount namespace its own /tmp, /var/tmp, /dev/shm and /proc.

    Folders that another user cannot pass through (such as a home that holds the interpreter) are covered
    by an empty one, in which only the `keep` folders reappear: whatever else they held is out of sight.
    """
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    covered = {Path(path) for path in _COVERED if Path(path).is_dir()}
    needed = [*keep, Path(config.build)] if config.build else keep
    covered |= {closed for path in needed if (closed := _closed_ancestor(path)) is not None}
    for folder in sorted(covered):
        if not any(folder != other and folder.is_relative_to(other) for other in covered):
            _cover(folder, [path for path in keep if path.is_relative_to(folder)], config)
    _hide(config.hidden)


def mount_proc() -> None:
    """Replace /proc by that of the caller's process namespace."""
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)


def _closed_ancestor(path: Path) -> Path | None:
    for ancestor in reversed(path.parents):
        if not ancestor.stat().st_mode & stat.S_IXOTH:
            return ancestor
    return None


def _cover(folder: Path, keep: Iterable[Path], config: SandboxConfig) -> None:
    kept = [(path, os.open(path, os.O_PATH)) for path in keep]
    public = str(folder) in _COVERED
    mode = "1777" if public else "0755"
    options = f"mode={mode},size={config.limits.scratch_bytes}"
    linux.mount("tmpfs", str(folder), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    for path, fd in kept:
        path.mkdir(parents=True, exist_ok=True)
        linux.mount(f"/proc/self/fd/{fd}", str(path), flags=linux.MS_BIND | linux.MS_REC)
        os.close(fd)


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


def become_nobody(uid: int) -> None:
    """Continue as user and group `uid`, which owns nothing, with no way back."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def prefer_for_oom_kill() -> None:
    """Have the kernel end this process first when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


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
