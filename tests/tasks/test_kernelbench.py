"""KernelBench's levels from a checkout."""

import pytest

from kbopt.core.errors import UserError
from kbopt.tasks import list_tasks, load_task
from kbopt.tasks.kernelbench import CHECKOUT_VARIABLE

SOURCE = "class Model: ...\ndef get_inputs(): ...\ndef get_init_inputs(): ...\n"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "KernelBench" / "level1"
    folder.mkdir(parents=True)
    (folder / "1_Square_matrix_multiplication_.py").write_text(f"N = 1\n{SOURCE}")
    (folder / "12_Matmul_with_diagonal_matrices_.py").write_text(f"N = 12\n{SOURCE}")
    (folder / "13_broken.py").write_text("class Model: ...")
    return tmp_path


def test_a_level_is_read_from_the_checkout_by_its_number(checkout):
    task = load_task("level1/1", kernelbench=checkout)

    assert (task.name, task.family, task.source) == ("level1/1", "matmul/nn", f"N = 1\n{SOURCE}")
    assert load_task("level1/12", kernelbench=checkout).family == "diagonal"


@pytest.mark.parametrize(
    ("name", "family"), [("level2/12", "linear_tail/gemm_multiply_leakyrelu"), ("level3/1", "linear_chain")]
)
def test_the_same_number_has_another_family_in_another_level(checkout, name, family):
    level, number = name.split("/")
    folder = checkout / "KernelBench" / level
    folder.mkdir()
    (folder / f"{number}_problem.py").write_text(SOURCE)

    assert load_task(name, kernelbench=checkout).family == family


def test_the_environment_names_the_checkout(checkout, monkeypatch):
    monkeypatch.setenv(CHECKOUT_VARIABLE, str(checkout))

    assert load_task("level1/12").source.startswith("N = 12")


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"is no checkout of KernelBench: it has no problems in KernelBench/level1"
    ):
        load_task("level1/1", kernelbench=tmp_path)


def test_a_problem_that_does_not_exist_is_answered_with_those_that_do(checkout):
    with pytest.raises(UserError, match=r"no problem level1/101 in .*: it has the problems 1, 12 to 13\."):
        load_task("level1/101", kernelbench=checkout)


def test_a_level_that_does_not_exist_is_answered_with_those_that_do(checkout):
    with pytest.raises(UserError, match=r"unknown level 'level9'.*level1, level2, level3, level4"):
        load_task("level9/1", kernelbench=checkout)


def test_a_problem_in_another_format_is_told_what_it_misses(checkout):
    with pytest.raises(UserError, match="level1/13 defines no get_inputs, get_init_inputs"):
        load_task("level1/13", kernelbench=checkout)


def test_the_problems_of_a_checkout_are_listed_by_level_and_number(checkout):
    (checkout / "KernelBench" / "level2").mkdir()
    (checkout / "KernelBench" / "level2" / "2_a.py").write_bytes(b"\xff\xfe")
    (checkout / "KernelBench" / "level2" / "10_b.py").write_text("class Model(")
    listed = [info for info in list_tasks(kernelbench=checkout) if info.name.startswith("level")]
    assert [info.name for info in listed if info.name.startswith("level2")] == ["level2/2", "level2/10"]
    numbers = [int(info.name.split("/")[1]) for info in listed if info.name.startswith("level1")]
    assert numbers == sorted(numbers)
    by_name = {info.name: info for info in listed}
    assert by_name["level1/12"].family == "diagonal"
    assert "cannot read the task" in by_name["level2/2"].title
    assert "line 1" in by_name["level2/10"].title


def test_the_environments_checkout_is_listed_too(checkout, monkeypatch):
    assert not [info for info in list_tasks() if info.name.startswith("level")]
    monkeypatch.setenv(CHECKOUT_VARIABLE, str(checkout))
    assert [info for info in list_tasks() if info.name == "level1/1"]


def test_a_folder_without_problems_is_not_listed_but_refused(tmp_path):
    (tmp_path / "KernelBench" / "level1").mkdir(parents=True)
    with pytest.raises(UserError, match="is no checkout of KernelBench"):
        list_tasks(kernelbench=tmp_path)
    with pytest.raises(UserError, match="is no checkout of KernelBench"):
        load_task("level1/1", kernelbench=tmp_path)
