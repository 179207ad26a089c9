"""Tasks and kernels in the field's formats on the command line: listed, and judged on a CPU."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from kbopt.cli import parsed
from kbopt.cli.eval import evaluate
from kbopt.core.errors import UserError
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.finish import open_run
from kbopt.tasks import load_task
from tests.cli.test_reproduce import CONFIG, made
from tests.cli.test_run import kbopt
from tests.support import formats
from tests.support.compilers import needs_extensions

CPP = """
#include <torch/extension.h>

torch::Tensor run(torch::Tensor a, torch::Tensor b) {
    return at::linear(a, b);
}
"""
FORMS = {
    "sol": (
        formats.write_sol,
        "kernel.py",
        formats.NORM_KERNEL,
        (".mul_(norm_weight)", ".add_(norm_weight)"),
    ),
    "traces": (
        formats.write_traces,
        "solution.json",
        json.dumps(formats.PRODUCT_SOLUTION),
        ("B @ A.T", "B @ A.T * 2"),
    ),
    "hard": (formats.write_hard, "solution.py", formats.HARD_KERNEL, (".square_()", ".abs_()")),
    "mode": (formats.write_mode, "submission.py", formats.MODE_KERNEL, (".add_(b)", ".sub_(b)")),
    "cpp": (formats.write_traces, "kernel.cpp", CPP, ("(a, b);", "(a, b) * 2;")),
}
QUICKLY = ("--device", "cpu", "--timed", 20, "--trials", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=needs_extensions if f == "cpp" else ()) for f in FORMS]
)
def test_a_kernel_in_a_formats_own_form_is_judged(form: str, tmp_path: Path) -> None:
    write, name, text, (right, wrong) = FORMS[form]
    path, kernel = write(tmp_path / "task"), tmp_path / name
    for source, outcomes in (
        (text, {"measured", "rejected"}),
        (text.replace(right, wrong), {"wrong_answer"}),
    ):
        kernel.write_text(source)
        document = judged("--task", path, "--kernel", kernel)
        assert document["outcome"] in outcomes, document["feedback"]
        if form != "hard":  # Its parameters are zeros, and KernelBench copies none.
            assert document["kernelbench"]["correctness"] == (outcomes != {"wrong_answer"})


def judged(*words: object) -> dict[str, Any]:
    done = kbopt("eval", *words, "--json", *QUICKLY)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_workloads_of_a_path_are_listed(tmp_path: Path) -> None:
    path = formats.write_mode(tmp_path / "one")

    done = kbopt("tasks", path, "--json")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == [
        f"{path}#{name}" for name in ("benchmark0", "benchmark1", "test0")
    ]
    assert "size=64" in kbopt("tasks", path).stdout


def test_a_workload_that_cannot_be_resolved_says_so_in_its_row(tmp_path: Path) -> None:
    workloads = [formats.workload("a", 2, x={"type": "[odd]"}), formats.workload("b", 3)]
    path = formats.write_sol(tmp_path, workloads=workloads)

    listed = kbopt("tasks", path).stdout

    assert "'[odd]'" in listed
    done = kbopt("eval", "--task", path, "--kernel", "kernel.py")
    assert (done.returncode, "inputs.x.type: '[odd]'" in done.stderr) == (2, True)


def test_a_path_does_not_go_with_admit(tmp_path: Path) -> None:
    done = kbopt("tasks", tmp_path, "--admit")

    assert done.returncode == 2
    assert "--admit goes through a checkout" in done.stderr


def at(words: tuple[str, ...], tasks: list[Task]) -> str:
    """The precision that tasks are judged in, with these words on the command line."""
    with click.Context.scope(context := evaluate.make_context("eval", list(words))):
        precision = context.params["precision"]
        return parsed.at_stated_precision(EvalProtocol(precision=precision), tasks).precision


def test_the_precision_is_stated_by_the_task_unless_it_is_given(tmp_path: Path) -> None:
    half = json.loads(json.dumps(formats.NORM).replace("float32", "bfloat16"))
    stated = load_task(str(formats.write_sol(tmp_path, half)))
    plain = load_task("quick/gelu")

    assert at((), [stated]) == "bf16"
    assert at((), [plain]) == "fp32"
    assert at((), []) == "fp32"
    assert at(("--precision", "fp16"), [stated, plain]) == "fp16"
    with pytest.raises(UserError, match=r"the tasks are stated in bf16 and fp32: give --precision for all"):
        at((), [stated, plain])


def test_the_command_that_reproduces_a_run_says_another_precision_than_the_stated_one(tmp_path: Path) -> None:
    half = json.loads(json.dumps(formats.NORM).replace("float32", "bfloat16"))
    stated = load_task(str(formats.write_sol(tmp_path / "task", half)))
    for precision, said in (("bf16", ""), ("fp32", " --precision fp32")):
        config = replace(CONFIG, task=stated, protocol=EvalProtocol(precision=precision))
        with open_run(made(tmp_path / precision, config)) as run:
            command = run.reproduce_elsewhere
        assert command.startswith(f"kbopt eval --task '{tmp_path}/task#seed=0' --kernel best.py")
        assert command.endswith(f"--gpu H100{said}")


def test_a_folder_of_kernels_may_hold_solutions(tmp_path: Path) -> None:
    path, kernels = formats.write_traces(tmp_path / "task"), tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "odd.json").write_text("{")

    done = kbopt("eval", "--task", path, "--kernels", kernels, *QUICKLY)

    assert done.returncode == 2
    assert "odd.json: not judged" in done.stderr
    assert json.loads(done.stdout)["reason"].startswith(f"{kernels}/odd.json: no JSON")


def test_a_search_may_start_from_a_kernel_in_its_own_form(tmp_path: Path) -> None:
    path, kernel = formats.write_sol(tmp_path / "task"), tmp_path / "mine.py"
    kernel.write_text(formats.NORM_KERNEL)

    done = kbopt("run", "--task", path, "--start", kernel, "--out", tmp_path / "run", "--device", "cpu")

    assert done.returncode == 2
    assert "no `# tune:` comment with alternatives" in done.stderr
