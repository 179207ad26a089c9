"""Runs several compilers at once and collects their output."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

POLL_S = 0.005


def run_side_by_side(
    commands: Sequence[Sequence[str]], directory: Path, *, timeout_s: float = math.inf
) -> tuple[bool, str]:
    """Run all commands at once. Return whether all succeeded, and their output.

    At the first failure the other commands are ended, and only the output of the failed ones is returned.
    Commands that still run after `timeout_s` seconds are ended, and the run has failed.
    """
    deadline = time.monotonic() + timeout_s
    logs = [directory / f"command{number}.log" for number in range(len(commands))]
    # Compilers stay in this process's group, so that a signal to the group ends them too.
    running = [_start(command, log) for command, log in zip(commands, logs, strict=True)]
    try:
        while (codes := [process.poll() for process in running]).count(None) and not any(codes):
            if time.monotonic() > deadline:
                return False, f"no end after {timeout_s:g} s: {' '.join(commands[codes.index(None)])}"
            time.sleep(POLL_S)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    failed = [log for log, code in zip(logs, codes, strict=True) if code]
    return not failed, "".join(log.read_text(errors="replace") for log in failed or logs)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())


def _environment() -> dict[str, str]:
    # gcc's messages then are in English and ASCII, for the reader of the feedback.
    return {**os.environ, "LC_ALL": "C"}
