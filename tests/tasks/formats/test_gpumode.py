"""GPU MODE: what of a task's files is in its source, what kernels are given, and the faults of task.yml."""

from pathlib import Path

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.tasks import list_formats, load_task, precision_of
from tests.support import formats
from tests.tasks.formats.test_formats import answer, run


def test_the_source_has_what_the_reference_needs_and_no_more(tmp_path: Path) -> None:
    source = load_task(str(formats.write_mode(tmp_path / "one"))).source

    assert "class Exact" in source
    assert "input_t = TypeVar" in source
    assert "make_match_reference" not in source
    assert "unused" not in source
    assert "from task" not in source
    assert "from utils" not in source


def test_memory_for_outputs_is_allocated_in_the_call_and_inputs_stay(tmp_path: Path) -> None:
    module = run(load_task(str(formats.write_mode(tmp_path / "one"))).source)
    [data] = module.get_inputs()
    a, b, c = data

    assert c["empty"].shape == (0, 128, 128)
    first, second = module.Model()(data), module.Model()(data)
    assert torch.equal(first, torch.tanh(a) + b)
    assert first.data_ptr() != second.data_ptr()


def test_only_what_is_allocated_and_nothing_else_is_memory_for_outputs(tmp_path: Path) -> None:
    reference = formats.MODE_REFERENCE.replace("c = torch.empty(size, size)", "c = torch.zeros_like(b)")
    kept = reference.replace("return a, b, c", "c.fill_(1)\n    return a, b, c")

    [zeros] = run(load_task(str(formats.write_mode(tmp_path / "one", reference))).source).get_inputs()
    [filled] = run(load_task(str(formats.write_mode(tmp_path / "two", kept))).source).get_inputs()

    assert zeros[2].keys() == {"zeros"}
    assert torch.equal(filled[2], torch.ones(128, 128))


def test_arguments_are_those_of_the_workload(tmp_path: Path) -> None:
    path = str(formats.write_mode(tmp_path / "one"))

    assert "generate_input(size=64, seed=seed, scale=0.5)" in load_task(f"{path}#benchmark1").source
    assert [row.title.split("; ")[1] for row in list_formats(path)] == [
        "size=128",
        "size=64 scale=0.5",
        "size=7",
    ]


def test_floats_of_several_dtypes_reach_the_reference_as_they_are(tmp_path: Path) -> None:
    reference = """
import torch

def generate_input(size):
    a = torch.randn(size).to(torch.float8_e5m2)
    return {"a": a, "b": [torch.randn(size, dtype=torch.bfloat16), 3], "c": torch.arange(size)}

def ref_kernel(data):
    assert data["a"].dtype == torch.float8_e5m2
    assert data["c"].dtype == torch.int64
    return data["a"].float() + data["b"][0] * data["b"][1]
"""
    task = 'benchmarks:\n  - {"size": 9}\nfiles: []\n'
    source = load_task(str(formats.write_mode(tmp_path / "one", reference, task))).source

    assert precision_of(source) == "bf16"
    assert answer(source).shape == (9,)


def test_modules_are_imported_in_every_way(tmp_path: Path) -> None:
    reference = """
from __future__ import annotations
import torch
import utils
import utils as tools, math
from utils import Exact as Precise, unused
from task import *

def generate_input(size: int, seed: int) -> input_t:
    from utils import unused as nothing
    return torch.full((size,), float(nothing() + utils.unused() + tools.unused()) + math.pi)

def ref_kernel(data: input_t) -> output_t:
    with Precise():
        return data + unused()
"""
    folder = formats.write_mode(tmp_path / "one", reference, formats.MODE_YAML.replace(', "scale": 0.5', ""))

    assert answer(load_task(str(folder)).source)[0].item() == pytest.approx(3.14159, abs=1e-4)


def test_one_name_of_two_modules_is_refused_where_both_are_needed(tmp_path: Path) -> None:
    reference = formats.MODE_REFERENCE.replace(
        "def ref_kernel", "class Exact(Exact):\n    pass\n\n\ndef ref_kernel"
    )

    with pytest.raises(UserError, match=r"utils and reference both define Exact"):
        load_task(str(formats.write_mode(tmp_path / "one", reference)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('lang: "py"', 'lang: "cu"', r"task\.yml, lang: 'cu'"),
        ('lang: "py"', "multi_gpu: true", r"task\.yml, multi_gpu: true\. kbopt judges kernels on one GPU"),
        ('"../utils.py"', '"../tools.py"', r"task\.yml, files\[2\]\.source: no file .*tools\.py"),
        ('{"name": "task.py", "source": "task.py"}', "task.py", r"task\.yml, files\[1\]: 'task\.py'"),
        ('"size": 128, ', "", r"benchmarks\[0\]\.size: generate_input needs this argument"),
        ('"size": 128', '"size": 128, "width": 2', r"benchmarks\[0\]\.width: generate_input has no such arg"),
        ('"size": 128', '"size": .inf', r"benchmarks\[0\]: .*a map of generate_input's arguments"),
        (
            '"size": 128',
            '"size": 2020-01-01',
            r"benchmarks\[0\]: size is datetime\.date.*finite numbers, text",
        ),
        ('"size": 128', '"size": &x [*x]', r"benchmarks\[0\]: size is \[\[\.\.\.\]\]"),
        ('"size": 128', '"size": ' + "9" * 5000, r"task\.yml: no YAML, Exceeds the limit"),
        ('"size": 128', '"size": !!timestamp x', r"task\.yml: no YAML"),
        ('"size": 128', "7: 128", r"benchmarks\[0\]: 7\. Its keys are names"),
        ('{"size": 128, "seed": 21}', "128", r"benchmarks\[0\]: 128"),
        ("benchmarks:", "benchmarks: 3\nothers:", r"benchmarks: int\. It is a list"),
        ("benchmarks:", "tests: []\nothers:", r"neither benchmarks nor tests"),
        ("tests:", "tests: [\n", r"task\.yml: no YAML"),
    ],
)
def test_a_fault_of_task_yml_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    folder = formats.write_mode(tmp_path / "one", task=formats.MODE_YAML.replace(old, new, 1))

    with pytest.raises(UserError, match=said):
        load_task(str(folder))


@pytest.mark.parametrize("name", ["generate_input", "ref_kernel"])
def test_a_function_that_a_reference_lacks_is_named(name: str, tmp_path: Path) -> None:
    folder = formats.write_mode(tmp_path / "one", formats.MODE_REFERENCE.replace(f"def {name}", "def other"))

    with pytest.raises(UserError, match=rf"reference\.py: it defines no {name}\. "):
        load_task(str(folder))
