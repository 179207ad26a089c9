"""The limits of a child that runs untrusted code: what it may read and write, and how much.

The fork server probes once which kinds of isolation the kernel grants (`Isolation`), and every child gets all
of those: PID, mount, network and IPC namespaces, a separate user, a filter of system calls, resource limits,
and a short list of environment variables. A service that does not run as root cannot change users. Its
sandboxes are user namespaces, in which users' folders are hidden. Without namespaces only resource limits and
the walk of the process tree remain.
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

import kbopt
from kbopt.evaluation.sandbox import linux

ALLOWED_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"),
    *("CC", "CXX", "OMP_NUM_THREADS", "TORCH_CUDA_ARCH_LIST", "NVIDIA_VISIBLE_DEVICES"),
    *("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS"),
)
"""Environment variables that the service and its children get. None of them holds a secret."""

SCRATCH = Path("/tmp")
LOG_NAME = "service.log"
"""File in the service's state folder with what it and its trusted processes print on standard error."""
OOM_TRUSTED = 500
"""oom_score_adj of a judge. The kernel kills candidates (1000) first and the fork server last, because all
other processes die with it."""
_COVERED = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders that every user can write to. Each sandbox has its own."""
_SYSTEM = ("bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "sbin")
_SHOWN = (*_SYSTEM, "sys", "usr")
"""Folders in / that belong to the system and to no user."""
_DEVICES = ("/dev/fuse", "/dev/userfaultfd")
"""Devices with which a process can fill memory only when it is read. The sandbox hides them."""
_LISTS = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")
"""Variables that name folders of the toolchain, separated by colons."""
_SCRATCH_BYTES = 2**30
"""Bytes that each of the sandbox's own folders may hold."""
_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 2**30,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_NPROC: 512,
}
"""The limits of each process in a sandbox: no core dumps, bytes of a file, open files, and processes."""
_FIRST_UID = 61_000
_NUM_UIDS = 4_000
"""Sandboxes run as user `_FIRST_UID` and the following ones, above UID_MAX (60000) of login.defs(5)."""
NO_SANDBOX = (
    "NO SANDBOX: this machine cannot isolate candidates as it should ({isolation}). A kernel can read "
    "your files, use the network, or disturb its own judgement."
)
LET_USERS_HAVE_NAMESPACES = (
    "let users have namespaces (sysctl user.max_user_namespaces=10000; on Debian "
    "kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a "
    "container --security-opt seccomp=unconfined)"
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environ` that are in `ALLOWED_VARIABLES`."""
    return {name: environ[name] for name in ALLOWED_VARIABLES if name in environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The kinds of isolation that the kernel grants.

    `network` means that the child has no network. `user` means that it runs as another user than the service;
    with `user_namespace` this holds inside the sandbox only. `calls` means that the system calls in `seccomp`
    are refused, and `counted` that the init process is notified of each start of a process.
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
        """Whether a candidate can reach neither users' files nor the network nor other processes."""
        return self.processes and self.mounts and self.network and self.user and self.calls

    def without(self, names: Iterable[str]) -> Isolation:
        return replace(self, **dict.fromkeys(names, False))

    def __str__(self) -> str:
        granted = [name.replace("_", " ") for name, has in asdict(self).items() if has]
        return "isolated " + (", ".join(granted) if granted else "by resource limits and process tree only")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """The configuration of one child's sandbox.

    `memory_bytes` limits the private memory of all of its processes together. With `address_space` it also
    limits the address space of each process; CUDA needs this off, because it reserves far more than it uses.
    Its scratch folder is `HOME` and the working directory: a new folder in the private /tmp, or
    `scratch_fallback` without a mount namespace. `build` is the folder of the candidate's build; the child
    sees a copy unless `build_writable`. `serial` chooses the child's user. `readable` are folders that it
    sees besides the interpreter's. `hidden` are device files that it cannot open. `without` names kinds of
    isolation, as in `Isolation`, under which the device's driver does not work.
    """

    memory_bytes: int
    environ: Mapping[str, str]
    scratch_fallback: str
    serial: int
    address_space: bool = True
    build: str = ""
    build_writable: bool = False
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def uid(self) -> int:
        return _FIRST_UID + self.serial % _NUM_UIDS


def interpreter_paths() -> list[Path]:
    """Return the folders from which Python imports, each as written and with symbolic links resolved.

    Of the folder that holds kbopt only kbopt itself is returned, because it may be a user's checkout.
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
    """Return the folders of programs and libraries that `environ` names.

    A compiler also looks in their siblings, so the parent is returned instead, unless it is a folder of the
    root or belongs to the caller.
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
    """Give the caller's mount namespace its own /tmp, /var/tmp and /dev/shm, and hide other folders.

    A folder that other users cannot enter, such as a home that holds the interpreter, is covered by an empty
    one in which only the `keep` folders are visible. In a user namespace the candidate has the service's
    rights on files. So there every folder that is not the system's is covered too, and all mounts are
    read-only.
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
    outermost = _outermost(covered)
    for folder in outermost:
        inside = [path for path in (*covered, Path(config.build)) if path.is_relative_to(folder)]
        cover(folder, [path for path in keep if path.is_relative_to(folder)], inside)
    for folder in sorted(covered - set(outermost)):
        if str(folder) in _COVERED:
            cover(folder, [])
    _hide(hidden)
    if isolation.user_namespace:
        for folder in outermost:
            if str(folder) not in _COVERED:
                linux.set_read_only(str(folder))


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that lie in none of the others."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


@functools.cache
def homes() -> frozenset[Path]:
    """Return the home of the service's user, as the system names it and with symbolic links resolved.

    The first call has to come before the process changes its user or loses the network, since it asks the
    system.
    """
    with contextlib.suppress(KeyError):
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        if home.is_dir():
            return frozenset({home, home.resolve()} - {Path("/")})
    return frozenset()


def _folders_of_users() -> set[Path]:
    """Return the root's folders that are not the system's, and the service user's in /etc, /opt and /usr."""
    folders = {path for path in Path("/").iterdir() if path.name not in _SHOWN and path.is_dir()}
    places = [Path(place) for place in ("/etc", "/opt", "/usr", "/usr/local") if Path(place).is_dir()]
    folders |= {path for place in places for path in place.iterdir() if path.is_dir() and _is_ours(path)}
    return {path for path in folders if not path.is_symlink()}


def _is_ours(path: Path) -> bool:
    return path.stat().st_uid == os.geteuid()


def closed_ancestor(path: Path) -> Path | None:
    """Return the outermost parent of `path` that other users cannot enter, or None."""
    for ancestor in reversed(path.parents):
        if not ancestor.stat().st_mode & stat.S_IXOTH:
            return ancestor
    return None


def cover(
    folder: Path, keep: Iterable[Path], inside: Iterable[Path] = (), size_bytes: int = _SCRATCH_BYTES
) -> None:
    """Mount an empty tmpfs over `folder`, bind `keep` into it, and create empty folders for `inside`."""
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
    """Cover each file by one that cannot be opened. A GPU's driver then skips that device."""
    nothing = SCRATCH / "nothing"
    nothing.touch(mode=0)
    for file in files:
        linux.mount(str(nothing), file, flags=linux.MS_BIND)
    nothing.unlink()


def place_build(config: SandboxConfig, folder_fd: int, isolation: Isolation) -> None:
    """Mount the build folder behind `folder_fd` at its old path, after the folders around it were covered.

    Only the child that builds writes to the folder itself. Others get a copy, so that a candidate that writes
    into it changes nothing for later ones.
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


def apply_limits(config: SandboxConfig) -> None:
    """Set the caller's resource limits, soft and hard."""
    for kind, value in _LIMITS.items():
        linux.limit(kind, value)
    if config.address_space:
        linux.limit(resource.RLIMIT_AS, config.memory_bytes)


def become_nobody(uid: int, isolation: Isolation) -> None:
    """Change for good to user and group `uid`, which own nothing."""
    if not isolation.user_namespace:  # There setgroups(2) is denied.
        os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def prefer_for_oom_kill(score: int = 1000) -> None:
    """Have the kernel kill this process before those of a lower score when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def close_other_fds(keep: Iterable[int]) -> None:
    """Close all descriptors from 3 on except those in `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
