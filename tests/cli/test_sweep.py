"""`kbopt sweep` and `kbopt bench` as a user starts them on one machine: real processes, real Ray."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import wandb_records

SIMULATED = ("--backend", "simulated", "--proposer", "simulated")
SEARCHES = ("sim-smooth-PS-s0", "sim-smooth-random-s0")


def kbopt(
    *arguments: object, environment: dict[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kbopt", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def sweep(out: Path, *options: object, **how: object) -> subprocess.CompletedProcess[str]:
    searches = ("--tasks", "sim/smooth", "--algorithms", "PS,random", "--max-evals", 8)
    return kbopt("sweep", *searches, *SIMULATED, "--out", out, *options, **how)  # type: ignore[arg-type]


@pytest.mark.slow
def test_each_search_is_a_wandb_run_of_the_sweeps_group(tmp_path: Path) -> None:
    done = sweep(tmp_path, "--use-wandb", "--project-name", "p", "--wandb-mode", "offline", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    shares = document["fast_p"]
    assert set(shares) == {"0.5", "1.0", "1.05", "1.5", "2.0"}
    for name in SEARCHES:
        (path,) = (tmp_path / "sweep" / name).rglob("*.wandb")
        (run,) = [r.run for r in wandb_records.records(path) if r.HasField("run")][:1]
        assert (run.run_group, run.display_name, run.project) == ("sweep", name, "p")
        steps = wandb_records.history(path)
        assert [s["evaluations"] for s in steps if "current/speedup" in s] == list(range(1, 9))
        assert set(shares) == {key.removeprefix("fast_p/") for s in steps for key in s if "fast_p/" in key}


@pytest.mark.slow
def test_wandb_that_cannot_be_reached_stops_no_search(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    nowhere = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "3"}
    done = sweep(tmp_path, "--use-wandb", "--wandb-mode", "online", environment=nowhere)
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases: " in done.stderr
    status = kbopt("sweep", "status", "sweep", "--out", tmp_path)
    assert "2/2 searches over, 16 evaluations" in status.stdout


@pytest.mark.slow
def test_bench_gives_each_search_the_same_budget_and_leaves_lines_and_a_table(tmp_path: Path) -> None:
    options = ("--tasks", "sim/smooth", "--algorithms", "PS,random", "--seeds", 2, "--max-evals", 6)
    done = kbopt("bench", *options, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "bench" / "results.jsonl").read_text().splitlines()]
    assert [(line["algorithm"], line["seed"]) for line in lines] == [
        ("PS", 0),
        ("PS", 1),
        ("random", 0),
        ("random", 1),
    ]
    assert [line["evaluations"] for line in lines] == [6] * 4
    table = (tmp_path / "bench" / "table.md").read_text().splitlines()
    assert table[0] == "| task | PS | random |"
    speedups = [line["best"]["speedup"] if line["best"] else 0.0 for line in lines[:2]]
    mean, low, high = (f"{value:.2f}" for value in (sum(speedups) / 2, min(speedups), max(speedups)))
    shown = mean if low == high else f"{mean} ({low}-{high})"
    assert table[2].startswith(f"| sim/smooth | {shown} |")
