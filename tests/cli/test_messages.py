"""What the command line says before a long job, when a machine breaks, and of what doctor knows."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.cli.driving import extent
from kbopt.core.settings import Budget, SearchSettings
from kbopt.sweep import SweepConfig
from tests.support.quick_task import TASK

SIMULATED = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "simulated")


def kbopt(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kbopt", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_sweep_says_first_how_large_it_is() -> None:
    config = SweepConfig(
        name="s",
        tasks=(TASK,),
        algorithms=("PS", "random"),
        seeds=(0, 1, 2),
        settings=SearchSettings(budget=Budget(evaluations=50)),
    )
    assert extent(config) == (
        "6 searches: 1 task x 2 algorithms x 3 seeds, up to 50 evaluations each, 300 in all; "
        "--max-evals makes it smaller"
    )
    config = replace(
        config, settings=SearchSettings(budget=Budget(evaluations=50, usd=0.5)), spend="headroom"
    )
    assert extent(config) == (
        "6 searches: 1 task x 2 algorithms x 3 seeds, on average 50 evaluations each, 300 in all, at most "
        "3.00 dollars in all; --max-evals makes it smaller"
    )


def test_one_search_of_one_evaluation_is_told_in_the_singular() -> None:
    settings = SearchSettings(budget=Budget(evaluations=1))
    config = SweepConfig(name="s", tasks=(TASK,), algorithms=("PS",), seeds=(0,), settings=settings)
    assert extent(config) == (
        "1 search: 1 task x 1 algorithm x 1 seed, up to 1 evaluation each, 1 in all; "
        "--max-evals makes it smaller"
    )


@pytest.mark.slow
def test_a_disk_that_takes_no_more_says_how_to_go_on(tmp_path: Path) -> None:
    assert kbopt(tmp_path, "run", *SIMULATED, "--max-evals", 3, "--out", "run").returncode == 0
    (tmp_path / "run" / "best.py.part").mkdir()  # the kernel can no longer be written
    done = kbopt(tmp_path, "resume", "run")
    assert done.returncode == 3
    assert "cannot write run/best.py" in done.stderr
    assert "What was measured is in run; go on with: kbopt resume run" in done.stderr


def test_doctor_tells_all_that_it_knows_when_asked(tmp_path: Path) -> None:
    brief = kbopt(tmp_path, "doctor", "--task", "quick/gelo")
    told = kbopt(tmp_path, "doctor", "--task", "quick/gelo", "--verbose")
    assert brief.returncode == told.returncode == 2
    assert "unknown task 'quick/gelo'" in brief.stdout
    assert "Traceback" not in brief.stdout
    assert "Traceback (most recent call last)" in told.stdout


@pytest.mark.parametrize(
    "options", [("--task", "sim/smooth"), ("--task", "quick/gelu", "--backend", "simulated")], ids=" ".join
)
def test_a_simulated_task_is_judged_by_the_simulated_device_alone(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "kernel.py").write_text("class ModelNew: pass\n")
    done = kbopt(tmp_path, "eval", *options, "--kernel", "kernel.py")
    assert done.returncode == 2
    assert "do not go together: a simulation needs" in done.stderr


def test_seed_kernels_are_said_to_have_no_backward(tmp_path: Path) -> None:
    done = kbopt(tmp_path, "run", "--task", "quick/gelu", "--backward", "--device", "cpu")
    assert done.returncode == 2
    assert "--backward needs kernels with gradients" in done.stderr
    assert list(tmp_path.iterdir()) == []
