"""Time from the request to start a child to the first line of the candidate, forked against spawned.

Both in one run, in turns: a sandboxed child from the fork server, and a new Python process that imports
torch.

    python -m benchmarks.child_start
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from kbopt.evaluation.messages import Build, Raised
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig
from kbopt.evaluation.transport.channel import Channel

ROUNDS = 30
SPAWNED_EVERY = 6
CANDIDATE = "import time; raise RuntimeError(time.clock_gettime(time.CLOCK_MONOTONIC))"


JOB = Build(
    source=CANDIDATE, setup="", task_source="", device="cpu", precision="fp32", backward=False, arch=""
)


def forked_ms(fork_server: ForkServerHandle, folder: Path, serial: int) -> float:
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    config = SandboxConfig(
        memory_bytes=4 * 2**30,
        environ={"PATH": os.environ["PATH"]},
        scratch_fallback=str(folder / f"scratch-{serial}"),
        serial=serial,
    )
    child = Child(fork_server, "build", config)
    try:
        channel = Channel(child.data)
        channel.send(JOB)
        raised: Raised = channel.receive(Raised, 30)
        first_line = float(raised.text)
    finally:
        child.close()
    return 1000 * (first_line - started)


def spawned_ms() -> float:
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    program = "import torch, time; print(time.clock_gettime(time.CLOCK_MONOTONIC))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return 1000 * (float(shown.stdout) - started)


def main() -> None:
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        fork_server = ForkServerHandle(Path(folder), environ)
        print(fork_server.isolation)
        forked, spawned = [], []
        for number in range(ROUNDS):
            forked.append(forked_ms(fork_server, Path(folder), number))
            if number % SPAWNED_EVERY == 0:
                spawned.append(spawned_ms())
        fork_server.close()
    print(f"forked:  median {median(forked):.0f} ms, worst of {len(forked)} {max(forked):.0f} ms")
    print(f"spawned: median {median(spawned):.0f} ms, best of {len(spawned)} {min(spawned):.0f} ms")
    print(f"ratio of medians: {median(spawned) / median(forked):.0f}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
