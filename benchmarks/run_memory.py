"""Peak memory and wall clock of the default run, all of its processes together, beside importing torch alone.

Proportional set size (PSS) counts shared pages once, split among those that map them.

    .venv/bin/python -m benchmarks.run_memory
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.processes import descendants

SAMPLE_S = 1.0


def pss_bytes(pid: int) -> int:
    """0 for a process that is gone or may not be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def peak(command: list[str]) -> tuple[int, int, float]:
    """Peak PSS in bytes, the most processes at once, and the seconds that `command` took."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most_bytes = most_processes = 0
    while process.poll() is None:
        family = [process.pid, *descendants(process.pid)]
        most_bytes = max(most_bytes, sum(map(pss_bytes, family)))
        most_processes = max(most_processes, len(family))
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise RuntimeError(f"{command} exited with {process.returncode}")
    return most_bytes, most_processes, time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "kbopt", "run", "--out", f"{folder}/run"]
        alone = [sys.executable, "-c", "import torch, time; time.sleep(3)"]
        sides = {"import torch": peak(alone), "kbopt run": peak(run)}
    print("| what | peak PSS, MiB | processes | seconds |\n| --- | --- | --- | --- |")
    for name, (size_bytes, processes, seconds) in sides.items():
        print(f"| {name} | {size_bytes / 2**20:.0f} | {processes} | {seconds:.0f} |")
    print(f"\nmemory, run over torch alone: {sides['kbopt run'][0] / sides['import torch'][0]:.1f}")


if __name__ == "__main__":
    main()
