"""The Linux calls that Python 3.11 does not wrap: namespaces, mounts, prctl, reading another process.

Each function raises OSError with the call's errno. Constants are those of the kernel's headers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import re
import resource
import signal
import time
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_PTRACER = 0x59616D61
_PR_CAPBSET_DROP = 24
_ANY_PROCESS = -1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_SETATTR = 442
_MS_RELATIME = 1 << 21
_LAST_CAPABILITY = 40
_CPUCLOCK_SCHED = 2
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MIB = 2**20
_SHIFT_MIB = 8
"""Mebibytes over which heaps are spread: as many as two tensors of KernelBench's usual 1024 x 1024 floats."""

_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.POINTER(_IoVec),
    ctypes.c_ulong,
    ctypes.POINTER(_IoVec),
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move the caller (for CLONE_NEWPID: its future children) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that `fd` refers to."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Call the kernel; empty strings stand for null pointers."""
    args = [text.encode() or None for text in (source, target, kind)]
    _check(_libc.mount(*args, flags, options.encode() or None), f"mount {target}")


def become_user_namespace(uid: int) -> None:
    """Move the caller into a new user namespace, where it has all capabilities; outside it has none.

    The namespace maps one user and one group: the caller's own, both with the number `uid` inside.
    """
    outside = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    # Only a dumpable process owns its files in /proc, and so may write to them.
    show_memory_to_itself()
    Path("/proc/self/setgroups").write_text("deny")
    for name, number in zip(("uid_map", "gid_map"), outside, strict=True):
        Path(f"/proc/self/{name}").write_text(f"{uid} {number} 1")
    hide_memory()


def make_read_only() -> None:
    """Make all present mounts of the caller's mount namespace read-only."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if result < 0 and ctypes.get_errno() == errno.ENOSYS:
        make_read_only_one_by_one()
    else:
        _check(result, "mount_setattr")


def make_read_only_one_by_one() -> None:
    """The same for kernels before 5.12."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        target = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4])
        if rest.startswith("autofs") or target.startswith("/proc/"):
            continue  # To look at an autofs mount point mounts its file system.
        # A mount that another one covers cannot be reached by its name.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            set_read_only(target)


def set_read_only(target: str, read_only: bool = True) -> None:
    """Make one mount read-only or writable and keep its other flags."""
    has = os.statvfs(target).f_flag & ~os.ST_RDONLY
    flags = has & (MS_NOSUID | MS_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    flags |= _MS_RELATIME if has & os.ST_RELATIME else 0
    mount("", target, flags=MS_REMOUNT | MS_BIND | flags | (MS_RDONLY if read_only else 0))


def die_with_parent() -> None:
    """Have the kernel kill the caller when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def hide_memory() -> None:
    """Make the caller's memory, environment and descriptors unreadable to others of the same user."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def show_memory_to_itself() -> None:
    """Make the caller dumpable again after a change of user. Else it cannot list its own descriptors."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def allow_reader(pid: int | None) -> None:
    """Let process `pid`, or any process if None, read the caller's memory although Yama restricts ptrace.

    The other permission checks still hold. Without Yama the call does nothing.
    """
    number = _ANY_PROCESS if pid is None else pid
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(number), 0, 0, 0)


def forbid_new_privileges() -> None:
    """Set no_new_privs: no setuid binary gives the caller or its descendants more privileges."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Drop all capabilities of the calling thread, in case it is root and keeps its uid.

    The bounding set is emptied first, so that no exec gains one again.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def process_cpu_ns(pid: int) -> int:
    """Return the CPU time in nanoseconds that all threads of process `pid` have used so far."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


def displaced_ns(pid: int | str = "thread-self") -> int:
    """Return the nanoseconds that the main thread of `pid` was runnable and waited for a core.

    Return 0 if the kernel keeps no such statistics.
    """
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return 0


def descendants(pid: int) -> list[int]:
    """Return all descendants of `pid`. Processes that end meanwhile may be missing."""
    found: list[int] = []
    pending = [pid]
    while pending:
        for task in tasks(pending.pop()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = [int(word) for word in (task / "children").read_text().split()]
                found.extend(children)
                pending.extend(children)
    return found


def tasks(pid: int) -> list[Path]:
    """Return the folders of the threads of `pid` in /proc; none if it has ended."""
    folder = Path(f"/proc/{pid}/task")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list(folder.iterdir())
    return []


def states(pid: int) -> set[str]:
    """Return the states of the threads of `pid`, as letters of proc_pid_stat(5).

    In R and S a thread can use a core, T is stopped, Z has ended.
    """
    found = set()
    for task in tasks(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found


def keep_freed_memory() -> None:
    """Have malloc keep freed blocks of up to 32 MiB instead of returning them to the kernel (mallopt(3)).

    Otherwise a call's time depends on what the process allocated before: fresh pages are half the time of an
    elementwise kernel.
    """
    for option, value in ((_M_MMAP_THRESHOLD, 32 * 2**20), (_M_TRIM_THRESHOLD, 2**31 - 1)):
        if _libc.mallopt(option, value) != 1:
            raise OSError(f"mallopt({option}, {value}) was refused")


def shift_heap() -> None:
    """Have malloc place what follows elsewhere than in other processes that were forked from the same one.

    Those have the same addresses, and the speed of a call depends on the addresses of its tensors: one task
    took 1.25 ms in all processes of some services and 1.5 ms in others (decision 46).
    """
    # Below a mebibyte a hole among older blocks might do. Tensors lie at multiples of 64 bytes.
    _libc.malloc(random.SystemRandom().randrange(_MIB, (1 + _SHIFT_MIB) * _MIB, 64))


def read_memory(pid: int, address: int, target: int, size_bytes: int) -> None:
    """Copy `size_bytes` at `address` of process `pid` to address `target` of the caller."""
    done = 0
    while done < size_bytes:
        chunk = min(size_bytes - done, 2**30)
        local = _IoVec(target + done, chunk)
        remote = _IoVec(address + done, chunk)
        read = _libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if _check(read, "process_vm_readv") == 0:
            raise OSError(f"process {pid} ended while its memory was read")
        done += read


def peak_bytes() -> int:
    """Return the caller's peak resident memory in bytes, shared mappings included."""
    return _status_bytes("VmHWM")


def limit_address_space(more_bytes: int) -> None:
    """Have this process's allocations fail once its address space is `more_bytes` larger than now.

    A task without bounds then ends as one that is too large.
    """
    limit(resource.RLIMIT_AS, _status_bytes("VmSize") + more_bytes)


def limit(kind: int, value: int) -> None:
    """Set a resource limit of the caller, soft and hard, but not above the present hard one."""
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
