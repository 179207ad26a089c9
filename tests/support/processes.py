"""Processes of a test: who descends from whom, and a kill that spares nobody."""

import os
import signal
import time
from pathlib import Path


def descendants(pid: int) -> set[int]:
    """Every living process below `pid`, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text[text.rindex(")") + 2 :].split()
        children.setdefault(int(fields[1]), []).append(int(text.split(" ", 1)[0]))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo.extend(below)
    return found


def kill_family(pid: int) -> None:
    """SIGKILL to `pid` and all below it, the parent first; returns when every one is gone."""
    family = [pid, *descendants(pid)]
    for member in family:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 30
    for member in family[1:]:
        while is_running(member):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {member} outlived SIGKILL by 30 s")
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    """False for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text[text.rindex(")") + 2] != "Z"
