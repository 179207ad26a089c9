"""Tasks in the field's formats: what each becomes, how workloads are named, and their faults."""

import os
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.core.workloads import selected, shown_source, workloads_of
from kbopt.tasks import expand, list_formats, load_task, precision_of
from kbopt.tasks.source import validate
from tests.support import formats

WRITERS = {
    "sol": formats.write_sol,
    "traces": formats.write_traces,
    "hard": formats.write_hard,
    "mode": formats.write_mode,
}
NAMES = {
    "sol": ["aaaa-1", "bbbb-2"],
    "traces": ["product_n24_k16-40", "product_n24_k16-8"],
    "hard": ["shape0", "shape1"],
    "mode": ["benchmark0", "benchmark1", "test0"],
}
SHAPES = {
    "sol": [(32, 128), (96, 128)],
    "traces": [(40, 24), (8, 24)],
    "hard": [(64, 48), (3, 12)],
    "mode": [(128, 128), (64, 64), (7, 7)],
}
OWN = {
    "sol": "SOL-ExecBench",
    "traces": "FlashInfer-Bench",
    "hard": "KernelBench-Hard",
    "mode": "GPU MODE",
}


def run(source: str) -> types.ModuleType:
    """The source as a module."""
    module = types.ModuleType("task_of_a_format")
    exec(compile(source, "task.py", "exec"), module.__dict__)
    return module


def answer(source: str, seed: int = 0) -> Any:
    """What the source's model answers to inputs of its own."""
    module = run(source)
    torch.manual_seed(seed)
    model = module.Model(*module.get_init_inputs())
    with torch.no_grad():
        return model(*module.get_inputs())


@pytest.mark.parametrize("form", WRITERS)
def test_each_workload_is_a_task_in_kernelbenchs_format(form: str, tmp_path: Path) -> None:
    path = str(WRITERS[form](tmp_path / "one"))

    rows = list_formats(path)

    assert [row.name for row in rows] == [f"{path}#{name}" for name in NAMES[form]]
    assert {row.where_from for row in rows} == {OWN[form]}
    for row, shape in zip(rows, SHAPES[form], strict=True):
        task = load_task(row.name)
        assert task.name == row.name
        validate(task.source, row.name)
        assert answer(task.source).shape == shape


@pytest.mark.parametrize("form", WRITERS)
def test_a_path_without_a_workload_is_all_that_are_one_model(form: str, tmp_path: Path) -> None:
    path = str(WRITERS[form](tmp_path / "one"))

    task = load_task(path)

    assert task.name == f"{path}#{'shape0' if form == 'hard' else 'seed=0'}"
    assert task == load_task(task.name) == load_task(f"{path}/")


@pytest.mark.parametrize("form", ["sol", "traces", "mode"])
def test_all_workloads_of_a_path_may_be_one_task(form: str, tmp_path: Path) -> None:
    path = str(WRITERS[form](tmp_path / "one"))

    task = load_task(f"{path}#all")

    validate(task.source, task.name)
    found = {workload.name: workload for workload in workloads_of(task.source)}
    assert sorted(found) == NAMES[form]
    module = run(task.source)
    for shape, name in zip(SHAPES[form], NAMES[form], strict=True):
        torch.manual_seed(3)
        inputs = module.get_inputs(**found[name].arguments)
        assert module.Model()(*inputs).shape == shape
        assert torch.equal(module.Model()(*inputs), answer(load_task(f"{path}#{name}").source, 3))


ONE_MODEL = formats.HARD_REFERENCE.replace("return [rows, columns]", "return [8, 8]").replace(
    "torch.randn(BATCH, rows)", "torch.randn(BATCH, 8)"
)
MODE_SIZES = (
    formats.MODE_YAML.partition("tests:")[0]
    + "tests: [{size: 1001, seed: 1}, {size: 1002, seed: 1}, {size: 1003, seed: 1}]\n"
)
MODE_SIZES += "benchmarks: [{size: 1004, seed: 1}, {size: 1005, seed: 1}]\n"


def test_shapes_that_only_inputs_depend_on_are_one_task(tmp_path: Path) -> None:
    shapes = "SHAPES = [{'batch': 64}, {'batch': 3}]"
    path = str(formats.write_hard(tmp_path / "one", ONE_MODEL, shapes))

    task = load_task(path)

    found, module = workloads_of(task.source), run(task.source)
    assert [workload.arguments for workload in found] == [{"BATCH": 64}, {"BATCH": 3}]
    assert [module.get_inputs(**w.arguments)[0].shape for w in found] == [(64, 8), (3, 8)]


def test_shapes_that_are_models_of_their_own_are_told_so(tmp_path: Path) -> None:
    path = formats.write_hard(tmp_path / "one")

    with pytest.raises(UserError, match=r"depends on columns, rows.*each is a model of its own.*one by one"):
        load_task(f"{path}#all")


def test_of_many_workloads_a_path_is_eight(tmp_path: Path) -> None:
    workloads = [formats.workload(f"w{batch}", batch) for batch in range(1, 31)]
    path = str(formats.write_sol(tmp_path, workloads=workloads))

    assert roles(path) == {
        "shown": ["w1", "w13", "w22", "w30"],
        "hidden": ["w18", "w26"],
        "held_out": ["w5", "w9"],
    }
    assert [len(names) for names in roles(f"{path}#all").values()] == [15, 8, 7]


def roles(name: str) -> dict[str, list[str]]:
    """The names of the task's workloads by role, in the order of its source."""
    found: dict[str, list[str]] = {}
    for workload in workloads_of(load_task(name).source):
        found.setdefault(workload.role, []).append(workload.name)
    return found


@pytest.mark.parametrize(("num", "counts"), [(2, [1, 1]), (3, [2, 1]), (4, [2, 1, 1]), (7, [4, 2, 1])])
def test_the_larger_half_is_shown_and_of_the_rest_the_larger_half_is_hidden(
    num: int, counts: list[int], tmp_path: Path
) -> None:
    path = str(formats.write_traces(tmp_path, rows=tuple(range(2, 2 + num))))

    assert [len(names) for names in roles(path).values()] == counts


def test_a_seed_draws_which_workloads_are_shown_and_names_are_all_shown(tmp_path: Path) -> None:
    workloads = [formats.workload(f"w{batch}", batch) for batch in range(1, 9)]
    path = str(formats.write_sol(tmp_path, workloads=workloads))

    assert roles(f"{path}#seed=0") == roles(f"{path}#all") == roles(path)
    assert roles(f"{path}#seed=7") == roles(f"{path}#all+seed=7") != roles(path)
    assert load_task(f"{path}#all+seed=7").name == f"{path}#all+seed=7"
    assert roles(f"{path}#w2,w5,w1") == {"shown": ["w2", "w5", "w1"]}
    for wanted in ("seed=", "seed=-1", "seed=x", "seed=1" + "0" * 18, "w1,seed=7", "w1+seed=7"):
        with pytest.raises(UserError, match=r"A seed is a whole number .* for #seed=7 or #all\+seed=7"):
            load_task(f"{path}#{wanted}")


def test_a_workload_may_be_called_as_a_seed_is_asked_for(tmp_path: Path) -> None:
    path = str(formats.write_sol(tmp_path, workloads=[formats.workload("seed=3", 3)]))

    assert load_task(f"{path}#seed=3").source == load_task(path).source


def test_of_gpu_mode_benchmarks_are_shown_and_tests_are_not(tmp_path: Path) -> None:
    """The format times the benchmarks alone."""
    entries = "\n".join(f'  - {{"size": {size}, "seed": 1}}' for size in range(1, 21))
    many = f"lang: py\ntests:\n{entries}\nbenchmarks:\n{entries}\n"
    path = str(formats.write_mode(tmp_path / "many", task=many))

    assert roles(path) == {
        "shown": [f"benchmark{number}" for number in (0, 4, 8, 11, 15, 19)],
        "hidden": ["test0"],
        "held_out": ["test19"],
    }
    assert [len(names) for names in roles(f"{path}#all").values()] == [20, 10, 10]
    assert {one.weight for one in workloads_of(load_task(path).source) if one.role != "shown"} == {1e-6}
    few = str(formats.write_mode(tmp_path / "few", task=f"lang: py\ntests:\n{entries}\n"))
    assert [len(names) for names in roles(few).values()] == [4, 2, 2]


@pytest.mark.parametrize("form", ["sol", "traces", "sizes", "mode"])
def test_proposers_see_no_size_of_a_workload_that_is_not_shown(form: str, tmp_path: Path) -> None:
    sizes = range(1001, 1009)
    written = {
        "sol": lambda: formats.write_sol(tmp_path, workloads=[formats.workload(f"w{n}", n) for n in sizes]),
        "traces": lambda: formats.write_traces(tmp_path, rows=tuple(sizes)),
        "sizes": lambda: formats.write_hard(
            tmp_path, ONE_MODEL, f"SHAPES = {[{'batch': size} for size in sizes]}"
        ),
        "mode": lambda: formats.write_mode(tmp_path / "one", task=MODE_SIZES),
    }[form]()
    task = load_task(f"{written}#all+seed=3")

    shown = shown_source(task.source)

    module, whole = run(shown), run(task.source)
    found = workloads_of(task.source)
    assert workloads_of(shown) == tuple(one for one in found if one.role == "shown")
    for workload in found:
        size = shape_of(whole.get_inputs(**workload.arguments))
        assert 1001 <= size <= 1008
        assert (str(size) in shown.replace(workload.name, "")) == (workload.role == "shown")
        if workload.role == "shown":
            assert shape_of(module.get_inputs(**workload.arguments)) == size
        kept = run(selected(task.source, workload.name, "it"))
        assert shape_of(kept.get_inputs(**workload.arguments)) == size


def shape_of(inputs: list[Any]) -> int:
    first = inputs[0] if isinstance(inputs[0], torch.Tensor) else inputs[0][0]
    return int(first.shape[0])


@pytest.mark.parametrize("form", WRITERS)
def test_inputs_differ_from_one_seed_to_the_next(form: str, tmp_path: Path) -> None:
    source = load_task(str(WRITERS[form](tmp_path / "one"))).source

    assert torch.equal(answer(source, 1), answer(source, 1))
    assert not torch.equal(answer(source, 1), answer(source, 2))


def test_a_row_says_what_is_computed_the_sizes_and_the_precision(tmp_path: Path) -> None:
    [first, _] = list_formats(str(formats.write_sol(tmp_path)))

    assert first.title == "Scales rows to unit mean square; batch=32; fp32"


def test_a_name_may_be_cut_where_it_stays_unique(tmp_path: Path) -> None:
    path = str(formats.write_sol(tmp_path))

    assert load_task(f"{path}#bb").name == f"{path}#bbbb-2"
    with pytest.raises(UserError, match=r"unknown workload of .* 'c'.*Allowed: aaaa-1, bbbb-2"):
        load_task(f"{path}#c")
    with pytest.raises(UserError, match="unknown workload"):
        load_task(f"{formats.write_mode(tmp_path / 'two')}#benchmark")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a b", "a/b"), ("a-b", "a-b-2")),
        (("q" * 90 + "1", "q" * 90 + "2"), ("q" * 80, "q" * 75 + "-2")),
        (("all", "shown"), ("all-2", "shown-2")),
    ],
)
def test_workloads_of_any_names_make_one_task(
    names: tuple[str, ...], told: tuple[str, ...], tmp_path: Path
) -> None:
    lines = [formats.workload(name, size) for size, name in enumerate(names, 2)]

    task = load_task(str(formats.write_sol(tmp_path, workloads=lines)))
    assert tuple(workload.name for workload in workloads_of(task.source)) == told


def test_a_workload_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    path = str(formats.write_sol(tmp_path))

    assert load_task(f"{path}#bb,bbbb-2,").name == f"{path}#bbbb-2"
    assert load_task(f"{path}#bb,aa,bb").source == load_task(f"{path}#bbbb-2,aaaa-1").source
    with pytest.raises(UserError, match=r"unknown workload of .* ','"):
        load_task(f"{path}#,")


def test_a_pattern_is_no_task(tmp_path: Path) -> None:
    path = str(formats.write_sol(tmp_path))

    with pytest.raises(UserError, match=rf"a pattern stands for several tasks\. Give {path}#all"):
        load_task(f"{path}#*")


def test_a_pattern_stands_for_several_workloads(tmp_path: Path) -> None:
    path = str(formats.write_mode(tmp_path / "one"))

    assert expand([f"{path}#benchmark*", "quick/gelu"]) == (
        f"{path}#benchmark0",
        f"{path}#benchmark1",
        "quick/gelu",
    )
    assert expand([path, f"{path}#test0"]) == (path, f"{path}#test0")
    with pytest.raises(UserError, match="no workload has such a name"):
        expand([f"{path}#x*"])


def test_a_folder_of_no_format_names_the_files_that_tell_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder\. Give one of its \.py files, or .*definition\.json"):
        load_task(str(tmp_path))


def test_a_folder_of_two_formats_is_refused_and_the_file_decides(tmp_path: Path) -> None:
    formats.write_sol(formats.write_mode(tmp_path / "both"))
    formats.write_traces(formats.write_hard(tmp_path / "other"))

    with pytest.raises(UserError, match=r"2 formats: definition\.json \(SOL-ExecBench\), task\.yml"):
        load_task(str(tmp_path / "both"))
    with pytest.raises(
        UserError, match=r"Give the file of the one that is meant, such as .*/other/definitions"
    ):
        load_task(str(tmp_path / "other"))
    assert load_task(f"{tmp_path}/both/definition.json#bbbb-2").name.endswith("both/definition.json#bbbb-2")
    assert answer(load_task(f"{tmp_path}/other/definitions").source).shape == (40, 24)
    assert answer(load_task(f"{tmp_path}/other/shapes.py").source).shape == (64, 48)
    assert answer(load_task(f"{tmp_path}/both/task.yml").source).shape == (128, 128)


@pytest.mark.parametrize("name", ["absent.json", "absent.yml", "other.yml", "workload.jsonl"])
def test_a_file_of_no_format_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text("a: 1\n")
    (tmp_path / "workload.jsonl").write_text("{}\n")

    with pytest.raises(UserError, match=name):
        load_task(str(tmp_path / name))


@pytest.mark.parametrize("form", WRITERS)
def test_the_precision_is_the_one_that_the_format_states(form: str, tmp_path: Path) -> None:
    assert precision_of(load_task(str(WRITERS[form](tmp_path / "one"))).source) == "fp32"


def test_a_task_in_kernelbenchs_own_format_states_no_precision() -> None:
    assert precision_of(load_task("quick/gelu").source) is None
    assert precision_of("# precision: bf16\n") is None


@pytest.mark.parametrize(
    ("form", "file"), [("sol", "workload.jsonl"), ("hard", "reference.py"), ("mode", "reference.py")]
)
def test_a_file_that_is_missing_is_named(form: str, file: str, tmp_path: Path) -> None:
    folder = WRITERS[form](tmp_path / "one")
    (folder / file).unlink()

    with pytest.raises(
        UserError, match=rf"{file}: cannot be read, No such file.*needs {file}|no file \S*{file}"
    ):
        load_task(str(folder))


@pytest.mark.parametrize(
    ("form", "file"), [("sol", "definition.json"), ("sol", "workload.jsonl"), ("mode", "task.yml")]
)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe\x00{", r"cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"a pointer of Git LFS"),
        (b"[1, 2", r"no JSON|no YAML"),
        (b"[" * 100_000, r"no JSON|no YAML"),
        (b"17", r"instead of|one line with one JSON object"),
    ],
)
def test_a_file_that_is_no_text_or_another_one_is_named(
    form: str, file: str, data: bytes, said: str, tmp_path: Path
) -> None:
    folder = WRITERS[form](tmp_path / "one")
    (folder / file).write_bytes(data)

    with pytest.raises(UserError, match=rf"{file}(:1)?: .*({said})"):
        load_task(str(folder))


def test_a_file_that_cannot_be_read_is_told_apart_from_one_that_is_not_there(tmp_path: Path) -> None:
    folder = formats.write_sol(tmp_path)
    (folder / "definition.json").unlink()
    (folder / "definition.json").symlink_to("definition.json")

    with pytest.raises(UserError, match=r"definition\.json: cannot be read, Too many levels of symbolic"):
        load_task(str(folder))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = formats.write_sol(tmp_path)
    (folder / "workload.jsonl").unlink()
    os.mkfifo(folder / "workload.jsonl")

    with pytest.raises(UserError, match=r"workload\.jsonl: no regular file\. Copy its text into one"):
        load_task(str(folder))
