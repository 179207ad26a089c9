"""`kbopt run` and `kbopt resume` as a user starts them: real processes, real Ray, a simulated device."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from kbopt import driver
from kbopt.config import BackendConfig, ProposerConfig, RunConfig
from kbopt.core.events import Evaluated, Opened
from kbopt.simulated import landscape
from kbopt.store.journal import JournalReader
from tests.support.processes import descendants, is_running, kill_family

STARTED_S = 120.0
"""By when a search has evaluations: to start Ray and a judge takes a minute where four others do as well."""
SIMULATED = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "simulated")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kbopt", *map(str, arguments)]


def kbopt(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False)


def start(*arguments: object) -> subprocess.Popen[str]:
    # A shell that runs the tests in the background has Ctrl-C ignored, and children inherit that.
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command(*arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def evaluations(folder: Path) -> list[str]:
    """Candidates whose first measurement is in the journal."""
    with JournalReader(folder / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    return [event.candidate for event in events if isinstance(event, Evaluated) and event.repeat == 0]


def wait_for_evaluations(folder: Path, at_least: int) -> list[str]:
    deadline = time.monotonic() + STARTED_S
    while time.monotonic() < deadline:
        if (folder / "journal.sqlite").exists():
            found = evaluations(folder)
            if len(found) >= at_least:
                return found
        time.sleep(0.05)
    raise TimeoutError(f"no {at_least} evaluations in {folder} within {STARTED_S:g} s")


@pytest.mark.slow
def test_run_prints_one_json_document_and_leaves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = kbopt("run", *SIMULATED, "--num-steps", 3, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["proposals"] == 15
    assert document["cold_starts"] == 1
    assert sum(document["by_outcome"].values()) == document["evaluations"]
    assert 0 < document["gpu_busy_fraction"] <= 1
    best = document["best"]
    assert best["speedup_ci"][0] <= best["speedup"] <= best["speedup_ci"][1]
    assert Path(best["source_path"]).read_text() != ""
    assert Path(document["report"]).read_text().startswith("<!doctype html>")
    again = kbopt("run", *SIMULATED, "--out", folder)
    assert again.returncode == 2
    assert "holds another run" in again.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_ends_the_actors_and_says_how_to_resume(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("run", *SIMULATED, "--num-steps", 200, "--out", folder)
    wait_for_evaluations(folder, 5)
    family = descendants(process.pid)
    started = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family)
    assert b"ray::Coordinator" in started
    # glibc's own name for it; without it a coordinator grows (benchmarks/sweep_scale.py).
    (raylet,) = [pid for pid in family if b"raylet/raylet\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert b"MALLOC_ARENA_MAX=1" in Path(f"/proc/{raylet}/environ").read_bytes()
    assert not re.search(rb"(monitor|log_monitor|dashboard)\.py", started)  # Ray's for a cluster
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"kbopt resume {folder}" in errors
    assert len(evaluations(folder)) >= 5
    deadline = time.monotonic() + 30
    while any(map(is_running, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if is_running(pid)]


@pytest.mark.slow
def test_kill_9_at_random_moments_then_resume_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rng = random.Random(20261123)
    process = start("run", *SIMULATED, "--num-steps", 20, "--out", folder)
    seen: list[str] = []
    for _ in range(2):
        seen = wait_for_evaluations(folder, min(len(seen) + rng.randrange(1, 25), 90))
        kill_family(process.pid)
        process.communicate(timeout=30)
        survived = evaluations(folder)
        assert survived[: len(seen)] == seen
        process = start("resume", folder, "--json")
        seen = survived
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["proposals"] == 100
    counted = Counter(evaluations(folder))
    assert set(counted.values()) == {1}
    assert set(seen) <= counted.keys()
    with JournalReader(folder / "journal.sqlite") as journal:
        sessions = [e.event.session for e in journal.entries() if isinstance(e.event, Opened)]
    assert sessions == sorted(set(sessions))


def test_an_unknown_algorithm_is_answered_with_the_nearest_name() -> None:
    done = kbopt("run", "--algorithm", "PS_epsnet")
    assert done.returncode == 2
    assert "Did you mean PS_epsNet" in done.stderr


def test_help_imports_neither_torch_nor_ray_nor_numpy() -> None:
    script = (
        "import sys\nfrom kbopt.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'numpy', 'modal', 'wandb', 'litellm', 'rich'} & sys.modules.keys()\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_underscores_and_hyphens_in_options_are_the_same() -> None:
    done = kbopt("run", "--num_steps", "0")
    assert done.returncode == 2
    assert "--num-steps" in done.stderr


def test_resuming_what_is_no_run_says_so(tmp_path: Path) -> None:
    done = kbopt("resume", tmp_path)
    assert done.returncode == 2
    assert "no journal" in done.stderr


def test_a_damaged_cache_is_named_with_what_to_do(tmp_path: Path) -> None:
    config = RunConfig(
        name="run",
        task=landscape("sim/smooth").task,
        backend=BackendConfig(name="simulated"),
        proposer=ProposerConfig(name="simulated"),
    )
    driver.create(config, tmp_path / "run")
    (tmp_path / "run" / "evaluations.sqlite").write_text("no database" * 500)
    done = kbopt("resume", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert "evaluations.sqlite as the evaluation cache: file is not a database" in done.stderr
    assert "delete the file to measure again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("keep me")
    done = kbopt("run", *SIMULATED, "--out", tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "keep me"
