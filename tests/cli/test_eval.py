"""`kbopt eval`, `kbopt tasks` and `kbopt doctor` as a user starts them, with the real local evaluator."""

import json
from pathlib import Path

import pytest

from tests.cli.test_run import kbopt

TASK = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2.0 + 1.0

def get_inputs():
    return [torch.randn(256, 512)]

def get_init_inputs():
    return []
"""
GOOD = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mul_(2.0).add_(1.0)
"""
WRONG = GOOD.replace("2.0", "3.0")
BROKEN = GOOD.replace("class ModelNew(", "class ModelNew((")
FIELDS = {
    "task",
    "candidate",
    "outcome",
    "reason",
    "speedup",
    "speedup_ci",
    "speedups",
    "equal_code",
    "workloads",
    "kernel_ms",
    "reference_ms",
    "device",
    "protocol",
    "seconds",
    "kernelbench",
    "feedback",
}


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.py"
    path.write_text(TASK)
    return path


@pytest.mark.slow
def test_eval_prints_the_document_of_the_manual(task: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.py"
    kernel.write_text(WRONG)
    done = kbopt("eval", "--task", task, "--kernel", kernel, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == FIELDS
    assert document["outcome"] == "wrong_answer"
    assert document["speedup"] is None
    assert document["seconds"].keys() == {"queue", "compile", "check", "time"}
    verdict = document["kernelbench"]
    assert (verdict["compiled"], verdict["correctness"]) == (True, False)


@pytest.mark.slow
def test_many_kernels_stream_a_line_each_and_are_not_judged_again(task: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "kernels", tmp_path / "results.jsonl"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD)
    (folder / "broken.py").write_text(BROKEN)
    arguments = ("eval", "--task", task, "--kernels", folder, "--device", "cpu", "--timed", 20, "--out", out)
    assert kbopt(*arguments).returncode == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    outcomes = {Path(line["candidate"]).stem: line["outcome"] for line in lines}
    assert outcomes["broken"] == "compile_failed"
    assert outcomes["good"] == "measured"
    (folder / "wrong.py").write_text(WRONG)
    again = kbopt(*arguments)
    assert "3 candidates, 2 judged before" in again.stderr
    assert len(out.read_text().splitlines()) == 3


def test_eval_needs_one_source_of_kernels(task: Path) -> None:
    done = kbopt("eval", "--task", task)
    assert done.returncode == 2
    assert "--kernel FILE" in done.stderr


def test_a_missing_kernel_is_named(task: Path) -> None:
    done = kbopt("eval", "--task", task, "--kernel", "absent.py")
    assert done.returncode == 2
    assert "cannot read absent.py" in done.stderr


def test_an_unknown_task_is_answered_with_the_nearest_names() -> None:
    done = kbopt("run", "--task", "quick/gelo")
    assert done.returncode == 2
    assert "quick/gelu" in done.stderr


def test_a_json_line_without_source_is_named_by_its_number(task: Path, tmp_path: Path) -> None:
    lines = tmp_path / "kernels.jsonl"
    lines.write_text('{"source": "x = 1"}\n{"code": "x = 1"}\n')
    done = kbopt("eval", "--task", task, "--kernels", lines)
    assert done.returncode == 2
    assert "kernels.jsonl:2" in done.stderr


def test_tasks_lists_what_ships() -> None:
    done = kbopt("tasks", "--json")
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {f"matmul/{index}" for index in range(16)} <= names
    assert len([name for name in names if name.startswith("quick/")]) >= 12
    assert "sim/smooth" in names


def test_tasks_lists_a_checkouts_problems_too(tmp_path: Path) -> None:
    level = tmp_path / "KernelBench" / "level1"
    level.mkdir(parents=True)
    (level / "12_mine.py").write_text(TASK)
    done = kbopt("tasks", "--kernelbench", tmp_path, "--json")
    assert "level1/12" in {row["name"] for row in json.loads(done.stdout)}


@pytest.mark.slow
def test_doctor_runs_three_evaluations_in_one_worker() -> None:
    done = kbopt("doctor", "--device", "cpu", "--json")
    document = json.loads(done.stdout)
    names = [step["name"] for step in document["steps"]]
    assert names[:5] == ["load a task", "load a kernel", "open the backend", "3 evaluations", "equal code"]
    assert document["cold_starts"] == 1
    evaluations = document["steps"][3]
    assert "all in the same process" in evaluations["detail"]
    assert document["steps"][0]["ok"]
    assert document["steps"][2]["ok"]


WORKLOADS = """

def get_workloads():
    return [
        {"name": "one", "args": {}},
        {"name": "two", "args": {}, "role": "hidden"},
    ]
"""


def test_an_unknown_workload_is_a_users_mistake(task: Path, tmp_path: Path) -> None:
    task.write_text(TASK + WORKLOADS)
    kernel = tmp_path / "kernel.py"
    kernel.write_text(WRONG)

    done = kbopt("eval", "--task", task, "--kernel", kernel, "--workloads", "one,tow")

    assert done.returncode == 2
    assert "'tow'. Did you mean two" in done.stderr
    assert "Allowed: all, one, shown, two" in done.stderr


@pytest.mark.slow
def test_the_workloads_that_are_named_are_judged(task: Path, tmp_path: Path) -> None:
    task.write_text(TASK + WORKLOADS)
    kernel = tmp_path / "kernel.py"
    kernel.write_text(GOOD)

    done = kbopt(
        *("eval", "--task", task, "--kernel", kernel, "--device", "cpu", "--json", "--workloads", "two,one"),
        *("--trials", 1, "--timed", 20),
    )

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(one["name"], one["role"]) for one in document["workloads"]] == [
        ("two", "shown"),
        ("one", "shown"),
    ]


@pytest.mark.slow
def test_a_workload_that_does_not_fit_is_told_with_its_file(task: Path, tmp_path: Path) -> None:
    sized = TASK.replace("get_inputs():", "get_inputs(n):").replace("256", "n if n > 0 else 'huge'")
    told = '[{"name": "one", "args": {"n": 4}}, {"name": "none", "args": {"n": 0}, "role": "hidden"}]'
    task.write_text(f"{sized}\ndef get_workloads():\n    return {told}\n")
    kernel = tmp_path / "kernel.py"
    kernel.write_text(GOOD)
    done = kbopt("eval", "--task", task, "--kernel", kernel, "--device", "cpu")
    assert done.returncode == 2
    assert (
        f"task {task}: admission test 'the reference runs' failed: on workload none: get_inputs() raised"
        in (done.stderr)
    )
