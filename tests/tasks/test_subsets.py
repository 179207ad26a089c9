"""Which problems `kbopt bench kernelbench` runs."""

from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.tasks import load_task
from kbopt.tasks.subsets import REPRESENTATIVE, chosen, level_numbers


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("level1/1_A.py", "level1/2_B.py", "level1/23_C.py", "level2/1_D.py", "level2/4_E.py"):
        path = tmp_path / "KernelBench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def test_the_representative_part_is_what_a_checkout_has_of_it(checkout: Path) -> None:
    assert chosen("representative", (1, 2, 3), checkout) == ("level1/1", "level1/23", "level2/1")


def test_all_are_those_of_the_levels(checkout: Path) -> None:
    assert chosen("all", (2,), checkout) == ("level2/1", "level2/4")


def test_names_are_taken_as_they_are(checkout: Path) -> None:
    assert chosen("level1/2..3, quick/gelu", (3,), checkout) == ("level1/2", "level1/3", "quick/gelu")


def test_nothing_left_is_an_error(checkout: Path) -> None:
    with pytest.raises(UserError, match="--subset representative has no problem of level 3"):
        chosen("representative", (3,), checkout)


def test_a_misspelt_subset_is_told_with_those_that_there_are(checkout: Path) -> None:
    assert len(chosen("matmul", (1,), checkout)) == 16
    with pytest.raises(
        UserError, match=r"unknown subset 'representativ'\. Did you mean representative\?.* all,"
    ):
        chosen("representativ", (1,), checkout)
    with pytest.raises(UserError, match="no problem level1/3"):
        load_task(chosen("level1/3", (1,), checkout)[0], kernelbench=checkout)


def test_levels_are_numbers_each_once() -> None:
    assert level_numbers("2, 1,2") == (2, 1)
    with pytest.raises(UserError, match=r"there is no level .5."):
        level_numbers("1,5")


def test_the_representative_part_names_each_problem_once() -> None:
    assert {level: len(numbers) for level, numbers in REPRESENTATIVE.items()} == {1: 18, 2: 8, 3: 9}
    assert all(list(numbers) == sorted(set(numbers)) for numbers in REPRESENTATIVE.values())
