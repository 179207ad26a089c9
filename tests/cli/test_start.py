"""`kbopt run --start`: a search from the user's own kernel, on this machine's CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kbopt.core.events import Evaluated, Proposed
from kbopt.store.journal import JournalReader
from tests.support import quick_task

TUNED = quick_task.GOOD.replace("import torch\n", "import torch\n\nCHUNK = 64  # tune: 32, 64, 128\n", 1)


def kbopt(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kbopt", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a task of the user's own and a kernel for it."""
    (tmp_path / "task.py").write_text(quick_task.TASK.source)
    (tmp_path / "mine.py").write_text(TUNED)
    (tmp_path / "plain.py").write_text(quick_task.GOOD)
    return tmp_path


@pytest.mark.slow
def test_a_task_of_ones_own_is_searched_from_a_kernel_of_ones_own(folder: Path) -> None:
    options = ("--device", "cpu", "--num-steps", 2, "--num-candidates", 2, "--trials", 1, "--timed", 10)
    done = kbopt(folder, "run", "--task", "task.py", "--start", "mine.py", *options, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"] is not None
    with JournalReader(folder / "run" / "journal.sqlite") as journal:
        events = [entry.event for entry in journal.entries()]
    proposed = [event.candidate for event in events if isinstance(event, Proposed)]
    start = next(candidate for candidate in proposed if candidate.proposer == "start")
    assert start.source.startswith(TUNED.rstrip())
    assert start.note == "mine as it was given"
    assert start.id in {event.candidate for event in events if isinstance(event, Evaluated)}
    varied = {candidate.source.replace("CHUNK = 64", "") for candidate in proposed} - {
        start.source.replace("CHUNK = 64", "")
    }
    assert varied
    (folder / "mine.py").unlink()  # the run's folder holds all that it needs
    again = kbopt(folder, "resume", "run", "--json")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "kbopt ships none for it for a CPU. Give a kernel of your own with --start FILE"),
        (("--start", "absent.py"), "--start absent.py cannot be read: No such file"),
        (("--start", "task.py"), "--start task.py defines no ModelNew"),
        (("--start", "plain.py"), "no `# tune:` comment with alternatives"),
        (("--start", " ,"), "' ,' names no file. Give one or more"),
        (
            ("--start", "mine.py", "--model", "openai/gpt-5"),
            "--model and --proposer tunables do not go together",
        ),
        (
            ("--language", "triton"),
            "--language and --proposer tunables do not go together: give --proposer llm",
        ),
        (("--api-base", "http://127.0.0.1:9/v1"), "leave --api-base out"),
        (
            ("--agent-evals", "2"),
            "--agent-evals and --proposer tunables do not go together: give --proposer a",
        ),
        (("--agent-minutes", "2"), "leave --agent-minutes out"),
        (
            ("--epsilon", "0.1"),
            "--epsilon and --algorithm PS do not go together: give an algorithm with epsNet",
        ),
        (("--embedding-model", "openai/e"), "leave --embedding-model out"),
        (
            ("--start", "mine.py", "--run-name", "../../there"),
            "'../../there' is no name. Give one of 1 to 100",
        ),
        (("--start", "mine.py", "--run-name", "."), "'.' is no name"),
        (("--start", "mine.py", "--run-name", "x" * 101), "is no name. Give one of 1 to 100 bytes"),
        (("--start", "mine.py", "--proposer", "simulated"), "do not go together: a simulation needs"),
        (("--start", "mine.py", "--backend", "simulated"), "do not go together: a simulation needs"),
    ],
)
def test_what_cannot_be_started_from_leaves_no_run(options: tuple[str, ...], said: str, folder: Path) -> None:
    done = kbopt(folder, "run", "--task", "task.py", "--device", "cpu", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (folder / "runs").exists()


def test_an_address_in_the_environment_is_no_option_that_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBOPT_API_BASE", "http://127.0.0.1:9/v1")
    done = kbopt(folder, "run", "--task", "task.py", "--device", "cpu", "--start", "absent.py")
    assert "absent.py cannot be read" in done.stderr


def test_a_gpu_that_is_not_there_leaves_no_run(folder: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("needs a machine without a GPU")
    done = kbopt(folder, "run", "--task", "task.py", "--start", "mine.py", "--device", "cuda:0")
    assert done.returncode == 2
    assert "--device cuda:0: this machine has no NVIDIA driver" in done.stderr
    assert not (folder / "runs").exists()


def test_a_sweep_over_several_tasks_takes_no_kernel(folder: Path) -> None:
    done = kbopt(folder, "sweep", "--tasks", "quick/gelu,quick/swish", "--start", "mine.py")
    assert done.returncode == 2
    assert "--start goes with one task, and --tasks quick/gelu,quick/swish names 2" in done.stderr
