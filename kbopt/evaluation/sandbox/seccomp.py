"""The seccomp filter of a sandbox: which system calls it refuses, and how the init process counts processes.

A filter holds for a process and all its descendants and cannot be removed (seccomp(2)). It sees the numbers
of calls and arguments but no memory, so `clone3`, whose flags lie in memory, returns ENOSYS, and libc falls
back to `clone`.

Threads are allowed without notice, because the kernel adds their processor time to their process. A process
that ends between two looks takes its processor time with it, so the filter notifies the init process of every
start. That includes `vfork` and `posix_spawn`, whose parent waits in one thread while its others run. A
process that shares memory with a parent that does not wait has no honest use and is refused.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

Starts = Literal["counted", "unshared", "free"]
"""Which processes may start. "counted": all, and the init process is notified of each. "unshared": those that
share no memory, without notice. "free": all, without notice."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NUMBERS = {
    "x86_64": {
        "clone": 56,
        "fork": 57,
        "vfork": 58,
        "fcntl": 72,
        "ptrace": 101,
        "pivot_root": 155,
        "mount": 165,
        "umount2": 166,
        "timer_create": 222,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "setns": 308,
        "userfaultfd": 323,
    },
    "aarch64": {
        "fcntl": 25,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "unshare": 97,
        "timer_create": 107,
        "ptrace": 117,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "clone": 220,
        "setns": 268,
        "userfaultfd": 282,
    },
}
_SAME_NUMBERS = {
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "mount_setattr": 442,
    "open_tree_attr": 467,
}
_REFUSED = (
    # In a new user namespace the candidate could mount file systems, FUSE included, and set up a network.
    *("unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "open_tree_attr", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
    # With userfaultfd(2) a candidate fills an output's memory only when the judge reads it.
    "userfaultfd",
    # A debugger, or a timer whose signal is SIGCONT, could wake a paused process.
    *("ptrace", "timer_create"),
    # The user's keys are not files, so mounts do not hide them.
    *("add_key", "request_key", "keyctl"),
)
_ABSENT = ("clone3", "io_uring_setup")
"""These return ENOSYS, as on an older kernel: callers then use other calls."""
_F_SETSIG = 10
_CLONE_VM = 0x00000100
_CLONE_VFORK = 0x00004000
_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACES = 0x7E020000

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _ERRNO, _TELL = 0x7FFF0000, 0x00050000, 0x7FC00000
_SET_MODE_FILTER, _SPEC_ALLOW, _NEW_LISTENER = 1, 1 << 2, 1 << 3
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NOTIFICATION_BYTES = 80
"""Bytes of the kernel's `struct seccomp_notif`."""

_libc = ctypes.CDLL(None, use_errno=True)

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: the kernel's `struct sock_filter`."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_calls(starts: Starts) -> int | None:
    """Install the filter for the calling thread and all its descendants.

    If `starts` is "counted", return a descriptor for `ProcessCounter`. No process can start until that is
    read. Call `linux.forbid_new_privileges` first. Raises OSError if the kernel has no such filters or the
    machine's architecture is unknown.
    """
    program = b"".join(struct.pack("HBBI", *each) for each in _instructions(starts))
    # Without SPEC_ALLOW kernels before 5.16 turn on the slow mitigation of speculative store bypass.
    flags = _SPEC_ALLOW | (_NEW_LISTENER if starts == "counted" else 0)
    filters = _Program(len(program) // 8, program)
    number = _SECCOMP[platform.machine()]
    result = _libc.syscall(number, _SET_MODE_FILTER, ctypes.c_ulong(flags), ctypes.byref(filters))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    return int(result) if starts == "counted" else None


class ProcessCounter:
    """Answers the filter's notices: it allows each start of a process and counts it in `started`.

    A start that fails counts, and one that is interrupted and tried again counts twice.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.started = 0

    def fileno(self) -> int:
        return self._fd

    def answer(self) -> None:
        """Allow the start whose notice makes the descriptor readable."""
        notice = bytearray(_NOTIFICATION_BYTES)
        with suppress(FileNotFoundError):  # The caller was interrupted or has ended.
            fcntl.ioctl(self._fd, _RECEIVE, notice)
            (number,) = struct.unpack_from("Q", notice)
            self.started += 1
            fcntl.ioctl(self._fd, _SEND, struct.pack("QqiI", number, 0, 0, _CONTINUE))


def _instructions(starts: Starts) -> list[_Instruction]:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"no filter of system calls is known for {machine}")
    numbers = {**_NUMBERS[machine], **_SAME_NUMBERS}
    start = _TELL if starts == "counted" else _ALLOW
    shared = _ERRNO | errno.EPERM if starts == "unshared" else start
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_where(_ANY_BIT, _X32, [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]),
    ]
    for name in _REFUSED:
        program += _where(_EQUAL, numbers[name], [(_RETURN, 0, 0, _ERRNO | errno.EPERM)])
    for name in _ABSENT:
        program += _where(_EQUAL, numbers[name], [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    if "fork" in numbers:
        program += _where(_EQUAL, numbers["fork"], [(_RETURN, 0, 0, start)])
        program += _where(_EQUAL, numbers["vfork"], [(_RETURN, 0, 0, shared)])
    set_signal = [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8),
        *_where(_EQUAL, _F_SETSIG, [(_RETURN, 0, 0, _ERRNO | errno.EPERM)]),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program += _where(_EQUAL, numbers["fcntl"], set_signal)
    program += _where(_EQUAL, numbers["clone"], _clone(start, shared))
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _clone(start: int, shared: int) -> list[_Instruction]:
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        *_where(_ANY_BIT, _CLONE_NEW_NAMESPACES, [(_RETURN, 0, 0, _ERRNO | errno.EPERM)]),
        *_where(_ANY_BIT, _CLONE_THREAD, [(_RETURN, 0, 0, _ALLOW)]),
        *_where(_ANY_BIT, _CLONE_VFORK, [(_RETURN, 0, 0, shared)]),
        *_where(_ANY_BIT, _CLONE_VM, [(_RETURN, 0, 0, _ERRNO | errno.EPERM)]),
        (_RETURN, 0, 0, start),
    ]


def _where(test: int, operand: int, then: Iterable[_Instruction]) -> list[_Instruction]:
    block = list(then)
    return [(test, 0, len(block), operand), *block]
