"""Running Python as a user without privileges, also where the tests are root's.

`python tests/support/ordinary_user.py HOME PROGRAM ARGUMENT...` becomes that user and executes the program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UID = 54_321


def command(home: Path, *program: str) -> list[str]:
    """What runs `program` as a user who owns `home`; it may read the interpreter wherever that lies."""
    if os.geteuid() != 0:
        return list(program)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", str(home)], check=True)
    return [sys.executable, __file__, str(home), *program]


def _become(home: str) -> None:
    """Show an interpreter that lies in a folder which only root can enter, and nothing else of it."""
    from kbopt.evaluation import linux, sandbox

    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    keep = [*sandbox.interpreter_paths(), Path(__file__).resolve().parents[2]]
    for closed in {found for path in keep if (found := sandbox.closed_ancestor(path))}:
        sandbox.cover(closed, [path for path in keep if path.is_relative_to(closed)], 2**20)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.environ["HOME"] = home
    os.chdir(home)


if __name__ == "__main__":
    _become(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
