"""The system calls that a sandbox refuses, and those by which its init process counts processes (seccomp).

A filter holds for a process and all that it starts, and cannot be taken off. It looks at numbers only,
never behind pointers: `clone3`, whose flags lie behind one, does not exist, and libc falls back on `clone`.

Threads are free, since the kernel adds their processor time to their process's. A process that ends before
it was looked at takes its time with it, so each start of one is told to the init process, whoever starts it.
That holds for `vfork` and `posix_spawn` too: the parent's thread waits, and its other threads do not. Only a
process that shares memory and lets nobody wait has no honest use; it is refused.
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
"""Whether processes may start: each told to the init process; only those that share no memory, untold; any.
"""

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
    # A user namespace of its own would give the candidate mounts, FUSE's among them, and a network to set up.
    *("unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "open_tree_attr", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
    # Memory that its reader waits for.
    "userfaultfd",
    # What could wake a process that is paused: a debugger, and a timer whose signal is SIGCONT.
    *("ptrace", "timer_create"),
    # The user's keys, which are no files.
    *("add_key", "request_key", "keyctl"),
)
_ABSENT = ("clone3", "io_uring_setup")
"""Answered by ENOSYS, as by older kernels: callers have another way."""
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

_libc = ctypes.CDLL(None, use_errno=True)

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: the kernel's `struct sock_filter`."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_calls(starts: Starts) -> int | None:
    """Filter the calls of the calling thread and of all that it starts.

    Where starts are "counted", returns a descriptor for `ProcessCounter`: until somebody reads from it,
    nothing can start a process. Needs `linux.forbid_new_privileges`. Raises OSError where the kernel has no
    such filters, or this machine's architecture is unknown.
    """
    program = b"".join(struct.pack("HBBI", *each) for each in _instructions(starts))
    # Without the first flag older kernels slow the process down, as a remedy for speculation.
    flags = _SPEC_ALLOW | (_NEW_LISTENER if starts == "counted" else 0)
    filters = _Program(len(program) // 8, program)
    number = _SECCOMP[platform.machine()]
    result = _libc.syscall(number, _SET_MODE_FILTER, ctypes.c_ulong(flags), ctypes.byref(filters))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    return int(result) if starts == "counted" else None


class ProcessCounter:
    """Answers a filter's notices: lets each start of a process happen, and counts them in `started`.

    A start that fails, or is interrupted and made again, counts too.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.started = 0

    def fileno(self) -> int:
        return self._fd

    def answer(self) -> None:
        """Let the start go on that the descriptor is readable for."""
        notice = bytearray(_NOTIFICATION_BYTES)
        with suppress(FileNotFoundError):  # Whoever asked was interrupted meanwhile, or has ended.
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
