"""SIGTERM, as batch systems, `docker stop` and `timeout` send it, and Ctrl-C at any moment of a command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.test_run import SIMULATED, evaluations, kbopt, start, wait_for_evaluations
from tests.support.processes import descendants, is_running

STEPS = 15


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """What the command said on standard error, once it and all that it started are gone.

    Python drops an exception that its own handler of a fork meets: the signal is sent again, as users do.
    """
    family = descendants(process.pid)
    try:
        _, errors = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(is_running, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if is_running(pid)]
    return errors


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path} within 60 s")
        time.sleep(0.01)


@pytest.mark.slow
def test_sigterm_to_its_group_ends_a_run_as_ctrl_c_does_and_it_can_be_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("run", *SIMULATED, "--num-steps", STEPS, "--out", folder)
    seen = wait_for_evaluations(folder, 5)
    os.killpg(process.pid, signal.SIGTERM)
    errors = ended(process)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1] == f"stopped; go on with: kbopt resume {folder}"
    assert "Traceback" not in errors
    assert "SIGTERM" not in errors  # Ray's own report of it
    again = kbopt("resume", folder, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["proposals"] == 5 * STEPS
    assert set(Counter(evaluations(folder)).values()) == {1}
    assert evaluations(folder)[: len(seen)] == seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "later_s"), [(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.8), (signal.SIGINT, 0.0)]
)
def test_a_run_that_is_stopped_before_it_began_says_how_to_go_on(
    number: signal.Signals, later_s: float, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start("run", *SIMULATED, "--num-steps", 400, "--out", folder)
    wait_for(folder / "journal.sqlite")
    time.sleep(later_s)
    os.kill(process.pid, number)
    errors = ended(process, number)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == f"stopped; go on with: kbopt resume {folder}"
    assert "Traceback" not in errors


STOPPED_AS_RAY_CONNECTS = """
import os
import sys
from ray import _raylet
from kbopt.cli import main

number, core_worker = int(sys.argv.pop(1)), _raylet.CoreWorker

def stopped(*arguments):
    core = core_worker(*arguments)
    os.kill(os.getpid(), number)
    return core

_raylet.CoreWorker = stopped
main()
"""
"""The command, to which a signal comes at the moment when Ray's own handlers would take it."""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_while_ray_connects_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    script = (sys.executable, "-c", STOPPED_AS_RAY_CONNECTS, str(int(number)))
    arguments = ("run", *SIMULATED, "--num-steps", "400", "--out", str(folder))
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors = ended(process, number)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == f"stopped; go on with: kbopt resume {folder}"
    assert "Traceback" not in errors
    assert "SIGTERM" not in errors  # Ray's own report of it


@pytest.mark.slow
def test_sigterm_to_the_command_ends_a_sweep_as_ctrl_c_does_and_it_can_be_gone_on_with(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "elsewhere" / "mine"
    tasks = ("--tasks", "sim/smooth", "--seeds", 2, "--backend", "simulated", "--proposer", "simulated")
    named = ("--name", "mine", "--out", folder.parent)
    process = start("sweep", *tasks, "--max-evals", 40, *named)
    wait_for_evaluations(folder / "sim-smooth-PS-s0", 3)
    os.kill(process.pid, signal.SIGTERM)
    errors = ended(process)
    assert process.returncode == 143, errors
    assert f"stopped; go on with: kbopt sweep resume {folder}. What was measured is in {folder}" in errors
    assert "Traceback" not in errors
    again = kbopt("sweep", "resume", folder, "--json")
    assert again.returncode == 0, again.stderr
    assert [search["evaluations"] for search in json.loads(again.stdout)["searches"]] == [40, 40]
