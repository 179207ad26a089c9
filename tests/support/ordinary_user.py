"""Running Python as a user without privileges, also where the tests are root's.

`python tests/support/ordinary_user.py HOME NAMESPACES PROGRAM ARGUMENT...` becomes that user and executes the
program; where NAMESPACES is 0, the kernel refuses it any.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UID = 54_321


def command(home: Path, *program: str, namespaces: bool = True) -> list[str]:
    """What runs `program` as a user who owns `home`; it may read the interpreter wherever that lies."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{UID}:{UID}", str(home)], check=True)
    return [sys.executable, __file__, str(home), str(int(namespaces)), *program]


def _become() -> None:
    """Show an interpreter that lies in a folder which only root can enter, and nothing else of it."""
    from kbopt.evaluation.sandbox import confinement, linux

    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    keep = [*confinement.interpreter_paths(), Path(__file__).resolve().parents[2]]
    for closed in {found for path in keep if (found := confinement.closed_ancestor(path))}:
        confinement.cover(closed, [path for path in keep if path.is_relative_to(closed)], size_bytes=2**20)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def _lose_namespaces() -> None:
    """Go on in a user namespace that may have no other ones below it, and without privileges in it."""
    from kbopt.evaluation.sandbox import linux

    linux.become_user_namespace(os.geteuid())
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


if __name__ == "__main__":
    if os.geteuid() == 0:
        _become()
    if sys.argv[2] == "0":
        _lose_namespaces()
    os.environ["HOME"] = sys.argv[1]
    os.chdir(sys.argv[1])
    os.execvp(sys.argv[3], sys.argv[3:])
