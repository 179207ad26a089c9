"""The tables of public examples and of languages: `benchmarks/formats_table.py`, `languages_table.py`."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.formats_table import Line, prepare, read_lines, table
from benchmarks.languages_table import examples
from kbopt.core.errors import UserError
from kbopt.core.languages import Language
from tests.adversarial.case import Device
from tests.docs.examples import ROOT
from tests.support import formats


def written(root: Path) -> Path:
    """A folder with an example of each format, and solutions where a repository would have them."""
    sol = formats.write_sol(root / "sol-execbench/norm")
    solution = {**formats.PRODUCT_SOLUTION, "definition": "scaled_norm"}
    solution["spec"] = {**solution["spec"], "entry_point": "main.py::run", "destination_passing_style": True}
    solution["sources"] = [{"path": "main.py", "content": formats.NORM_KERNEL}]
    (sol / "solution.json").write_text(json.dumps(solution))
    traces = formats.write_traces(root / "flashinfer-bench/set")
    formats.write_traces(root / "flashinfer-bench/other")
    (traces / "solutions").mkdir()
    (traces / "solutions/one.json").write_text(json.dumps(formats.PRODUCT_SOLUTION))
    hard = formats.write_hard(root / "kernelbench-hard/linear")
    (hard / "solution.py").write_text(formats.HARD_KERNEL)
    formats.write_hard(root / "kernelbench-hard/torn", shapes="SHAPES = []\n")
    mode = formats.write_mode(root / "gpu-mode/tanh")
    (mode / "solutions/wrong").mkdir(parents=True)
    (mode / "submission.py").write_text(formats.MODE_KERNEL)
    (mode / "solutions/wrong/sub.py").write_text(formats.MODE_KERNEL.replace(".add_(b)", ".sub_(b)"))
    (mode / "solutions/none.py").write_text(
        "from utils import unused\n\n\ndef custom_kernel(d):\n    unused()\n"
    )
    return root


def test_each_example_has_its_task_and_the_solutions_that_belong_to_it(tmp_path: Path) -> None:
    found = {one.name: one for one in prepare(written(tmp_path))}

    assert {name: [one.name for one in found[name].solutions] for name in found} == {
        "norm": ["solution.json"],
        "other/definitions/gemm/product_n24_k16.json": [],
        "set/definitions/gemm/product_n24_k16.json": ["solutions/one.json"],
        "linear": ["solution.py"],
        "torn": [],
        "tanh": ["submission.py", "solutions/none.py", "solutions/wrong/sub.py"],
    }
    assert found["torn"].task is None
    assert "SHAPES" in found["torn"].refused
    assert (found["tanh"].num_chosen, found["tanh"].num_workloads) == (3, 3)
    assert "ModelNew = Model" in found["linear"].solutions[0].source
    assert "unused" in found["tanh"].solutions[1].refused
    assert not any(str(tmp_path) in one.task.name for one in found.values() if one.task)


def test_a_part_of_an_example_is_its_smallest_workloads_and_first_solutions(tmp_path: Path) -> None:
    found = {one.name: one for one in prepare(written(tmp_path), most_workloads=1, most_solutions=1)}

    assert [one.name for one in found["tanh"].solutions] == ["submission.py"]
    assert found["norm"].task is not None
    assert found["norm"].task.name == "norm#aaaa-1"  # 32 rows, and the other has 96
    assert found["tanh"].task is not None
    assert found["tanh"].task.name == "tanh#benchmark1"  # 64 rows where benchmark0 has 128; no test counts


def test_a_format_without_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder sol-execbench"):
        prepare(tmp_path)


def test_the_table_has_a_row_for_each_solution_and_counts_for_each_format(tmp_path: Path) -> None:
    (example,) = [one for one in prepare(written(tmp_path)) if one.name == "tanh"]
    task = Line(format="gpu-mode", example="tanh", solution="", key="k", outcome="admitted", reason="")
    measured = replace(
        task,
        solution="submission.py",
        outcome="measured",
        kernel_ms=0.5,
        reference_ms=1.0,
        speedup=2.0,
        interval=(1.9, 2.1),
    )
    wrong = replace(task, solution="solutions/wrong/sub.py", outcome="wrong_answer", reason="far | off\nby 1")

    assert table([example], [task, measured, wrong]).splitlines()[2:] == [
        "| gpu-mode | tanh | 3 of 3 |  | admitted |  |  |  |",
        "| gpu-mode | tanh |  | submission.py | measured | 0.5 | 1 | 2.00 [1.90, 2.10] |",
        "| gpu-mode | tanh |  | solutions/none.py | not judged yet |  |  |  |",
        "| gpu-mode | tanh |  | solutions/wrong/sub.py | wrong_answer: far / off by 1 |  |  |  |",
        "",
        "- gpu-mode: 1 examples (1 admitted); solutions: 1 measured, 1 wrong_answer.",
    ]


@pytest.mark.slow
def test_examples_are_judged_and_what_is_there_is_not_judged_again(tmp_path: Path) -> None:
    script, out = ROOT / "benchmarks/formats_table.py", tmp_path / "out.jsonl"
    folder = written(tmp_path / "formats")

    def done(*arguments: str) -> str:
        command = [sys.executable, str(script), "--formats", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    done("--prepare")
    judging = ("--out", str(out), "--device", "cpu", "--timed", "10", "--in-flight", "1")
    for _ in range(2):
        said = done(*judging, "--only", "tanh")

        outcomes = {line.solution: line.outcome for line in read_lines(out)}
        assert outcomes.pop("submission.py") in {"measured", "rejected"}
        assert outcomes == {
            "": "admitted",
            "solutions/none.py": "not loaded",
            "solutions/wrong/sub.py": "wrong_answer",
        }
        assert len(read_lines(out)) == 4
        assert "- gpu-mode: 1 examples (1 admitted); solutions: " in said


@pytest.mark.parametrize(("device", "languages"), [("cpu", {"c"}), ("cuda", set(get_args(Language)) - {"c"})])
def test_a_kernel_in_each_language_and_tasks_with_gradients(device: Device, languages: set[str]) -> None:
    found = list(examples(device, None))

    assert {one.name for one in found if not one.backward} == languages
    assert all("class ModelNew" in one.solutions[0].source for one in found if not one.backward)
    gradients = {shipped.name for one in found if one.backward for shipped in one.solutions}
    assert {"gradients_by_hand: measured", "gradient_cached: wrong_answer"} <= gradients
