"""Names of tasks: what they stand for, and what is said of a wrong one."""

import re
import subprocess
import sys

import pytest

from kbopt.core.errors import UserError
from kbopt.tasks import expand, list_tasks, load_task
from kbopt.tasks.source import validate

MATMUL_DIMENSIONS = [
    {"N": 16, "M": 1024, "K": 2048, "L": 768},
    {"BATCH": 8, "ROWS": 256, "COLUMNS": 512, "L": 256, "K": 768},
    {"N": 4096, "M": 4096},
    {"N": 4096},
    {"N": 4096},
    {"N": 4096},
    {"M": 2048, "K": 8192, "N": 4096},
    {"M": 2048, "K": 8192, "N": 4096},
    {"M": 2048, "K": 8192, "N": 4096},
    {"N": 4096},
    {"M": 2048, "K": 8192, "N": 4096},
    {"BATCH": 128, "M": 512, "K": 1024, "N": 2048},
    {"M": 256, "N": 256, "K": 524288},
    {"M": 32768, "N": 32768, "K": 64},
    {"M": 8205, "K": 2949, "N": 5921},
    {"M": 32768, "N": 32},
]
MATMUL_TITLES = [
    *("3D tensor", "4D tensor", "Diagonal", "Symmetric", "Upper triangular", "Lower triangular"),
    *("first factor transposed", "second factor transposed", "both factors transposed", "two square"),
    *("Matrix product.", "Batched", "long shared", "short shared", "no tile divides", "Tall, skinny"),
]
TASK = """
class Model: ...
def get_inputs(): return []
def get_init_inputs(): return []
"""


def test_the_matmul_tasks_come_in_the_order_of_kernelbenchs_file_names():
    titles = [info.title for info in list_tasks() if info.name.startswith("matmul/")]

    assert len(titles) == 16
    assert [expected in title for expected, title in zip(MATMUL_TITLES, titles, strict=True)] == [True] * 16


@pytest.mark.parametrize("index", range(16))
def test_the_matmul_tasks_have_kernelbenchs_dimensions(index):
    source = load_task(f"matmul/{index}").source

    constants = {name: int(value) for name, value in re.findall(r"^([A-Z]+) = (\d+)$", source, re.MULTILINE)}
    assert constants == MATMUL_DIMENSIONS[index]


def test_every_built_in_task_is_in_kernelbenchs_format_and_has_a_family_and_a_title():
    for info in list_tasks():
        validate(load_task(info.name).source, info.name)
        assert info.family, info.name
        assert info.title.endswith("."), info.name


def test_at_least_twelve_quick_tasks_ship():
    assert len(expand(["quick"])) >= 12


def test_listing_and_loading_tasks_does_not_import_torch():
    program = (
        "import sys; from kbopt.tasks import list_tasks, load_task; list_tasks(); load_task('quick/gelu'); "
        "sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_an_unknown_task_is_answered_with_the_nearest_names():
    with pytest.raises(UserError, match=r"unknown task 'quick/gelo'\. Did you mean quick/gelu"):
        load_task("quick/gelo")


def test_a_file_is_a_task_and_may_name_its_family(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"# family: softmax\n{TASK}")

    task = load_task(str(path))

    assert (task.name, task.family) == (str(path), "softmax")


def test_a_file_with_a_syntax_error_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ndef f(:\n")

    with pytest.raises(UserError, match=r"broken\.py, line 2: "):
        load_task(str(path))


def test_a_file_without_get_inputs_is_told_what_it_misses(tmp_path):
    path = tmp_path / "half.py"
    path.write_text("class Model: ...\nget_init_inputs = list\n")

    with pytest.raises(UserError, match=r"half\.py defines no get_inputs\. A task in KernelBench's format"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("arguments", "workloads", "said"),
    [
        (
            "rows, width",
            "[{'name': 'a', 'args': {'rows': 1, 'widht': 2}}]",
            "workload a gives widht, which it",
        ),
        ("rows, width", "[{'name': 'a', 'args': {'rows': 1}}]", "workload a does not give width. get_inputs"),
        ("", "[{'name': 'a', 'args': {'rows': 1}}]", "line 3 takes no arguments; the args of"),
        ("rows", "", "a task without get_workloads() does not give rows"),
    ],
)
def test_workloads_that_do_not_fit_get_inputs_are_told_before_it_runs(arguments, workloads, said):
    source = TASK.replace("get_inputs()", f"get_inputs({arguments})")
    source += f"def get_workloads(): return {workloads}\n" if workloads else ""

    with pytest.raises(UserError) as error:
        validate(source, "my.py")
    assert said in str(error.value)


@pytest.mark.parametrize("arguments", ["rows=1, width=2", "**sizes", "rows, *, width=3"])
def test_arguments_with_a_default_need_not_be_given(arguments):
    source = TASK.replace("get_inputs()", f"get_inputs({arguments})")

    validate(f"{source}def get_workloads(): return [{{'name': 'a', 'args': {{'rows': 1}}}}]\n", "my.py")


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\xff\xfe\x00", "encoding")])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "absent.py"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UserError, match=f"cannot read the task .*{reason}"):
        load_task(str(path))


def test_a_source_with_null_bytes_is_a_user_error(tmp_path):
    path = tmp_path / "null.py"
    path.write_bytes(b"x = '\x00'\n")

    with pytest.raises(UserError, match=r"null\.py"):
        load_task(str(path))


def test_patterns_expand_to_groups_globs_ranges_and_names_each_once():
    assert expand(["matmul/0..2", "matmul/1", "level1/12", "level2/3..4", "x/y.py"]) == (
        *("matmul/0", "matmul/1", "matmul/2", "level1/12", "level2/3", "level2/4", "x/y.py"),
    )
    assert expand(["matmul"]) == tuple(f"matmul/{index}" for index in range(16))
    assert expand(["quick/*"]) == expand(["quick"])
    assert expand(["*/soft*"]) == ("quick/softmax",)


@pytest.mark.parametrize("pattern", ["matmul/3..1", "matmul/14..16", "quack", "quick/z*", "matmul/16", ""])
def test_a_pattern_that_stands_for_nothing_is_a_user_error(pattern):
    with pytest.raises(UserError):
        expand([pattern])


def test_names_of_tasks_are_told_in_their_natural_order():
    with pytest.raises(UserError, match=r"matmul/1, matmul/2, matmul/3, .*matmul/9, matmul/10, "):
        load_task("matmul/99")


@pytest.mark.parametrize("name", ["matmul", "matmul/", "matmul/*"])
def test_a_group_is_no_task_and_says_how_to_search_it(name):
    with pytest.raises(
        UserError, match=r"group of 16 tasks, matmul/0 to matmul/15.*kbopt sweep --tasks matmul`"
    ):
        load_task(name)


def test_a_folder_is_no_task(tmp_path):
    with pytest.raises(UserError, match=r"is a folder\. Give one of its .py files"):
        load_task(str(tmp_path))


@pytest.mark.parametrize("text", ["x = '\x00'\n", "x = " + "-" * 100_000 + "1\n", "x = " + "(" * 500])
def test_a_text_that_python_cannot_parse_is_a_user_error(text, tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(text)

    with pytest.raises(UserError, match=r"odd\.py.*A task is a Python source"):
        load_task(str(path))
