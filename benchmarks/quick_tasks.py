"""Every quick task by kbopt's own seed kernels on this machine's CPU, against eager PyTorch beside it.

    python -m benchmarks.quick_tasks [--num-steps 3]

Runs `kbopt sweep` and prints the README's table: the best kernel's speedup with its 95 % interval. Faster
means that the interval lies above 1. Some six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-steps", type=int, default=3)
    steps = parser.parse_args().num_steps
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kbopt", "sweep", "--tasks", "quick", "--num-steps", str(steps)]
        command += ["--seeds", "1", "--parallel-searches", "2", "--out", folder, "--name", "quick", "--json"]
        started = time.monotonic()
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    seconds = time.monotonic() - started
    print(f"{processor()}, torch {torch.__version__}, {steps} steps, {seconds:.0f} s\n")
    print(
        "| task | best speedup over eager [95 % CI] | evaluations | not measured |\n| --- | --- | --- | --- |"
    )
    rows = sorted(answer["searches"], key=lambda row: str(row["task"]))
    print("\n".join(map(row_of, rows)))
    print(f"\n{sum(row['best']['speedup_ci'][0] > 1 for row in rows)} of {len(rows)} are faster")


def row_of(row: dict[str, Any]) -> str:
    best, outcomes = row["best"], row["by_outcome"]
    low, high = best["speedup_ci"]
    failed = sum(outcomes.values()) - outcomes["measured"]
    return (
        f"| {row['task']} | {best['speedup']:.2f} [{low:.2f}, {high:.2f}] | {row['evaluations']} | {failed} |"
    )


def processor() -> str:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return models[0].partition(":")[2].strip() if models else platform.machine()


if __name__ == "__main__":
    main()
