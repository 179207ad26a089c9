"""Sets of published kernels in each format: small ones in the shape that the publishers' files have."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.tasks.published import Broken, Claim, Empty, Entry, Form, Published, read_set
from tests.support import formats

REFERENCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2.0

def get_inputs():
    return [torch.randn(8, 16)]

def get_init_inputs():
    return []
"""
KERNEL = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x).mul_(2.0)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """KernelBench with the problems 1/19 and 2/3."""
    for name in ("level1/19_Tanh.py", "level2/3_Tanh.py"):
        path = tmp_path / "checkout" / "KernelBench" / name
        path.parent.mkdir(parents=True)
        path.write_text(REFERENCE)
    return tmp_path / "checkout"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    path.mkdir()
    return path


def read(path: Path, checkout: Path | None = None, form: Form = "auto") -> tuple[Form, Sequence[Entry]]:
    found = read_set(path, form, checkout)
    return found.form, found.entries


def write_lines(path: Path, *values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values)
    )
    return path


def kinds(entries: Sequence[Entry]) -> dict[str, str]:
    return {entry.name: type(entry).__name__ for entry in entries}


def test_json_lines_have_the_kernel_or_its_file_and_the_reference_or_its_name(folder: Path) -> None:
    (folder / "kernel.py").write_text(KERNEL)
    write_lines(
        folder / "lines.jsonl",
        {"id": "whole", "reference": REFERENCE, "kernel": KERNEL, "claim": 3, "device": "A100"},
        {"name": "named", "task": "quick/gelu", "source": KERNEL, "speedup": 1.5},
        {"id": "filed", "task": "quick/gelu", "file": "kernel.py", "claim": None},
    )
    form, entries = read(folder)
    assert form == "jsonl"
    whole, named, filed = (entry for entry in entries if isinstance(entry, Published))
    assert (whole.task.source, whole.source, whole.claim) == (REFERENCE, KERNEL, Claim(speedup=3, on="A100"))
    assert (named.name, named.task.name, named.claim) == ("named", "quick/gelu", Claim(speedup=1.5))
    assert [entry.own_reference for entry in (whole, named, filed)] == [True, False, False]
    assert (filed.source, filed.claim, filed.where) == (KERNEL, None, str(folder / "kernel.py"))


def test_a_bad_line_is_named_with_its_number_and_the_rest_goes_on(folder: Path) -> None:
    path = write_lines(
        folder / "lines.jsonl",
        '{"id": "torn", "ker',
        "[1]",
        {"id": "no task", "kernel": KERNEL},
        {"id": "no kernel", "task": "quick/gelu"},
        {"id": "unknown task", "task": "quick/gelo", "kernel": KERNEL},
        {"id": "no model", "reference": "x = 1", "kernel": KERNEL},
        {"id": "word", "task": "quick/gelu", "kernel": KERNEL, "claim": "3x"},
        {"id": "number", "task": "quick/gelu", "kernel": 3},
        {"id": "outside", "task": "quick/gelu", "file": "../../etc/passwd"},
        {"id": "absent", "task": "quick/gelu", "file": "absent.py"},
        {"id": "left out", "task": "quick/gelu", "kernel": None},
        {"id": "good", "task": "quick/gelu", "kernel": KERNEL},
    )
    _, entries = read(path)
    assert [type(entry) for entry in entries] == [Broken] * 10 + [Empty, Published]
    said = [entry.reason for entry in entries if isinstance(entry, Broken)]
    wanted = (
        "lines.jsonl:1: no JSON",
        "lines.jsonl:2: '[1]' is no JSON object",
        "lines.jsonl:3: no reference and no task",
        "lines.jsonl:4: no kernel among id, task",
        "quick/gelu",
        "lines.jsonl:6, reference defines no Model",
        'lines.jsonl:7: the claim is "3x"',
        "lines.jsonl:8, kernel: 3 instead of a source",
        "is outside of",
        "cannot read",
    )
    for reason, words in zip(said, wanted, strict=True):
        assert words in reason


def test_two_kernels_of_one_name_are_told_apart(folder: Path) -> None:
    line = {"id": "same", "task": "quick/gelu", "kernel": KERNEL}
    _, entries = read(write_lines(folder / "lines.jsonl", line, line, line))
    assert [entry.name for entry in entries] == ["same", "same (2)", "same (3)"]


def test_pairs_are_told_by_the_reference_beside_a_kernel_or_by_its_problems_number(
    folder: Path, checkout: Path
) -> None:
    for name in ("tanh/kernel.py", "two/a.py", "two/b.py", "level1/19.py", "stray/kernel.py", "level1/77.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(KERNEL)
    (folder / "level_2_problem_3_sample_0_kernel.py").write_text(KERNEL)
    for name in ("tanh", "two", "alone"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "reference.py").write_text(REFERENCE)
    (folder / "claims.json").write_text(json.dumps({"tanh": 2.5, "two/a": "fast"}))
    form, entries = read(folder, checkout)
    assert form == "pairs"
    found = {entry.name: entry for entry in entries}
    assert kinds(entries) == {
        "tanh": "Published",
        "two/a": "Broken",
        "two/b": "Published",
        "level1/19": "Published",
        "level1/77": "Broken",
        "level_2_problem_3_sample_0_kernel": "Published",
        "stray": "Broken",
        "alone": "Broken",
    }
    assert found["tanh"].claim == Claim(speedup=2.5)
    assert (found["tanh"].own_reference, found["level1/19"].own_reference) == (True, False)
    assert found["level_2_problem_3_sample_0_kernel"].task.name == "level2/3"
    assert "no reference.py beside it" in found["stray"].reason
    assert "no kernel" in found["alone"].reason


def test_task_folders_have_their_shipped_solutions_and_nothing_else_of_theirs(folder: Path) -> None:
    hard, mode = formats.write_hard(folder / "hard/01_relu"), formats.write_mode(folder / "mode/tanh_py")
    formats.write_hard(folder / "hard/02_bare")
    for path, text in {
        hard / "solutions/model_solution.py": formats.HARD_KERNEL,
        hard / "check.py": "x = 1",
        mode / "submission.py": formats.MODE_KERNEL,
        mode / "template.py": formats.MODE_KERNEL,
        mode / "solutions/wrong/empty.py": "def other(): ...",
        mode.parent / "eval.py": "x = 1",
        folder / "pair/kernel.py": KERNEL,
        folder / "pair/reference.py": REFERENCE,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "claims.json").write_text(json.dumps({"mode/tanh_py/submission": 3.5}))
    form, entries = read(folder)
    assert form == "pairs"
    assert kinds(entries) == {
        "hard/01_relu/solutions/model_solution": "Published",
        "hard/02_bare": "Empty",
        "mode/tanh_py/submission": "Published",
        "mode/tanh_py/solutions/wrong/empty": "Broken",
        "pair": "Published",
    }
    found = {entry.name: entry for entry in entries}
    submission, solution = found["mode/tanh_py/submission"], found["hard/01_relu/solutions/model_solution"]
    assert isinstance(submission, Published)
    assert isinstance(solution, Published)
    assert submission.claim == Claim(speedup=3.5)
    assert submission.task.name == f"{mode}#seed=0"
    assert solution.task.name == f"{hard}#shape0"
    assert "class ModelNew" in submission.source
    assert (submission.own_reference, solution.own_reference) == (True, True)
    broken = found["mode/tanh_py/solutions/wrong/empty"]
    assert isinstance(broken, Broken)
    assert "defines neither a function custom_kernel" in broken.reason


def test_a_task_folder_is_a_set_by_itself(folder: Path) -> None:
    formats.write_mode(folder / "tanh_py")
    (folder / "tanh_py/submission.py").write_text(formats.MODE_KERNEL)
    _, (entry,) = read(folder / "tanh_py")
    assert isinstance(entry, Published)
    assert entry.name == "submission"


def test_a_folder_that_is_a_level_itself_gives_its_problems(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "level1").mkdir()
    (tmp_path / "level1" / "19.py").write_text(KERNEL)
    _, (entry,) = read(tmp_path / "level1", checkout, "pairs")
    assert isinstance(entry, Published)
    assert entry.task.name == "level1/19"


def test_cuda_l1_has_its_references_and_a_file_for_each_device(folder: Path) -> None:
    line = {"level_id": 1, "task_id": 19, "ref_code": REFERENCE, "custom_code": KERNEL}
    line["score_default"] = 6.5
    lines = [
        line,
        {**line, "task_id": 20, "custom_code": None},
        {**line, "task_id": 21, "ref_code": None},
        "{",
    ]
    path = write_lines(folder / "optimized_cuda_code" / "a100.json", *lines)
    form, entries = read(path)
    assert form == "cuda-l1"
    assert [type(entry) for entry in entries] == [Published, Empty, Broken, Broken]
    assert isinstance(entries[0], Published)
    assert (entries[0].task.name, entries[0].task.source) == ("level1/19", REFERENCE)
    assert entries[0].claim == Claim(speedup=6.5, on="a100")
    assert entries[0].own_reference
    write_lines(folder / "optimized_cuda_code" / "h100.json", line)
    _, both = read(folder)
    assert [entry.name for entry in both][::4] == ["a100/level1/19", "h100/level1/19"]


def test_the_leaderboard_counts_problems_from_zero(folder: Path, checkout: Path) -> None:
    value = {"problem_id": 18, "level": 1, "code": KERNEL, "torch_speedup": 0.5, "display_name": "a-model"}
    path = folder / "docs" / "assets" / "raw_data.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([value, {**value, "problem_id": 90}, {**value, "code": None}, 7]))
    form, entries = read(folder, checkout)
    assert form == "leaderboard"
    assert [type(entry) for entry in entries] == [Published, Broken, Empty, Broken]
    assert isinstance(entries[0], Published)
    assert (entries[0].name, entries[0].task.name) == ("level1/19 a-model", "level1/19")
    assert entries[0].claim == Claim(speedup=0.5, on="L40S")
    assert not entries[0].own_reference

    (path.parent / "problems").mkdir()
    (path.parent / "problems" / "l1_p91.py").write_text(REFERENCE)
    own = read(folder, checkout)[1][1]
    assert isinstance(own, Published)
    assert (own.task.name, own.task.source, own.own_reference) == ("level1/91", REFERENCE, True)


def test_adaexplore_has_metrics_beside_its_kernels(folder: Path, checkout: Path) -> None:
    place = folder / "results" / "saved_kernels" / "kernelbench"
    (place / "level2").mkdir(parents=True)
    (place / "level2" / "3.py").write_text(KERNEL)
    recorded = {"recorded_baseline": {"runtime_stats": {"fast_p": 1.25}}}
    again = {"measured_baseline": {"runtime_stats": {"fast_p": 1.5}}}
    metrics = {"_hardware": "RTX A6000", "problems": {"3": {**recorded, **again}, "4": recorded}}
    (place / "metrics_level2.json").write_text(json.dumps(metrics))
    form, entries = read(folder, checkout)
    assert form == "adaexplore"
    assert kinds(entries) == {"level2/3": "Published", "level2/4": "Empty"}
    assert isinstance(entries[0], Published)
    assert entries[0].claim == Claim(speedup=1.5, on="RTX A6000")


def test_solutions_lie_beside_a_definition_or_name_one_of_their_data_set(folder: Path) -> None:
    formats.write_sol(folder / "norm")
    solution = {
        "name": "fused",
        "definition": "scaled_norm",
        "spec": {"entry_point": "main.py::run"},
        "sources": [{"path": "main.py", "content": formats.NORM_KERNEL}],
    }
    (folder / "norm" / "solution.json").write_text(json.dumps(solution))
    form, (entry,) = read(folder)
    assert form == "solutions"
    assert isinstance(entry, Published)
    assert entry.task.name.endswith("definition.json#aaaa-1")
    assert "class ModelNew" in entry.source


def test_traces_of_a_data_set_are_its_claims(tmp_path: Path) -> None:
    root = tmp_path / "data"
    formats.write_traces(root)
    (root / "solutions").mkdir(exist_ok=True)
    (root / "solutions" / "transposed.json").write_text(json.dumps(formats.PRODUCT_SOLUTION))
    (root / "solutions" / "lost.json").write_text(
        json.dumps({**formats.PRODUCT_SOLUTION, "definition": "nowhere"})
    )
    _, before = read(root)
    named = {entry.name: entry for entry in before}
    assert "no definition nowhere" in named["solutions/lost"].reason
    first = named["solutions/transposed"]
    assert isinstance(first, Published)
    assert first.claim is None
    trace = {
        "definition": "product_n24_k16",
        "solution": "transposed",
        "workload": {"uuid": first.task.name.partition("#")[2], "axes": {"M": 5}, "inputs": {}},
        "evaluation": {"environment": {"hardware": "B200"}, "performance": {"speedup_factor": 1.75}},
    }
    write_lines(root / "traces" / "product.jsonl", trace)
    _, after = read(root)
    assert {entry.name: entry for entry in after}["solutions/transposed"].claim == Claim(
        speedup=1.75, on="B200"
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "is empty"),
        (("notes.txt", "more.txt"), "a folder with the files 2 .txt"),
        (("kernel.py",), "a folder with the files 1 .py"),
    ],
)
def test_what_is_no_set_is_told_what_was_seen_and_what_is_allowed(
    names: tuple[str, ...], said: str, folder: Path
) -> None:
    for name in names:
        (folder / name).write_text("text")
    with pytest.raises(UserError, match=said) as refused:
        read(folder)
    assert not names or "cuda-l1" in str(refused.value)


def test_a_file_or_format_that_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(folder / "absent")
    (folder / "notes.txt").write_text("text")
    with pytest.raises(UserError, match=r"none of the formats: it is a \.txt file of 4 bytes"):
        read(folder / "notes.txt")
    with pytest.raises(UserError, match="no set in the format cuda-l1"):
        read(folder, form="cuda-l1")
    write_lines(folder / "blank.jsonl", "", "")
    with pytest.raises(UserError, match="has no entries in the format jsonl"):
        read(folder / "blank.jsonl")


@pytest.mark.parametrize("claim", [0, -3, math.nan, math.inf, 10**400])
def test_a_claim_that_no_measurement_gives_is_none(claim: float, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"task": "quick/gelu", "kernel": KERNEL, "claim": claim}) + "\n")
    (entry,) = read_set(path, "jsonl", None).entries
    assert isinstance(entry, Published)
    assert entry.claim is None


def test_a_bad_byte_costs_its_line_and_an_unreadable_file_itself_alone(folder: Path) -> None:
    good = json.dumps({"id": "good", "task": "quick/gelu", "kernel": KERNEL}).encode()
    (folder / "a.jsonl").write_bytes(b'{"id": "\xe9"}\n' + good + b"\n")
    (folder / "b.jsonl").symlink_to(folder / "nowhere")
    (folder / "c.jsonl").mkdir()
    os.mkfifo(folder / "d.jsonl")
    form, entries = read(folder)
    assert form == "jsonl"
    reasons = {entry.name: entry.reason for entry in entries if isinstance(entry, Broken)}
    assert [entry.name for entry in entries if isinstance(entry, Published)] == ["good"]
    assert "a.jsonl:1: bytes that are no UTF-8" in reasons[str(folder / "a.jsonl:1")]
    assert set(reasons) == {str(folder / "a.jsonl:1"), "b.jsonl", "c.jsonl", "d.jsonl"}


def test_a_pipe_among_the_kernels_is_not_waited_for(folder: Path) -> None:
    (folder / "reference.py").write_text(REFERENCE)
    (folder / "good.py").write_text(KERNEL)
    os.mkfifo(folder / "pipe.py")
    form, entries = read(folder)
    assert form == "pairs"
    assert kinds(entries) == {"good": "Published", "pipe": "Broken"}
