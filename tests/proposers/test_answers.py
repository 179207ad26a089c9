"""Reading a model's answer."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.proposers.answers import Malformed, NewSource, judge, read_answer
from tests.support.llm_briefs import CHANGED, PARENT, edit, rewrite


def reason(answer: str, parent: str | None = PARENT) -> str:
    verdict = read_answer(answer, parent)
    assert isinstance(verdict, Malformed), verdict
    return verdict.reason


def source(answer: str, parent: str | None = PARENT) -> str:
    verdict = read_answer(answer, parent)
    assert isinstance(verdict, NewSource), verdict
    return verdict.source


def test_a_fenced_block_is_the_whole_source_and_the_first_line_its_note() -> None:
    assert read_answer(rewrite(), None) == NewSource(source=CHANGED, note="Calls the fused operation.")


def test_the_block_that_defines_the_model_wins_over_quotes_before_and_after() -> None:
    answer = (
        f"The parent had\n```python\nx.clamp(min=0)\n```\n{rewrite()}\nIt prints\n```text\nnothing\n```\n"
    )
    assert source(answer) == CHANGED


def test_of_two_complete_files_the_last_one_is_meant() -> None:
    second = CHANGED.replace("relu", "selu")
    assert source(rewrite() + "\nOn reflection:\n" + rewrite(second)) == second


def test_a_longer_fence_may_hold_a_shorter_one() -> None:
    kernel = CHANGED + 'HELP = """\n```\nquoted\n```\n"""\n'
    assert source(f"````python\n{kernel}````") == kernel


def test_windows_line_ends_are_read() -> None:
    assert source(rewrite().replace("\n", "\r\n")) == CHANGED


def test_an_edit_replaces_the_lines_that_match() -> None:
    assert source(edit("        return x.clamp(min=0)", "        return torch.relu(x)")) == CHANGED


def test_an_edit_matches_whatever_white_space_ends_its_lines() -> None:
    assert source(edit("        return x.clamp(min=0)   ", "        return torch.relu(x)")) == CHANGED


def test_edits_apply_one_after_the_other() -> None:
    answer = edit("BLOCK = 64  # tune: 32, 64", "BLOCK = 128") + edit("BLOCK = 128", "BLOCK = 256")
    assert "BLOCK = 256\n" in source(answer)


def test_an_edit_with_nothing_to_put_in_deletes_its_lines() -> None:
    answer = "<<<<<<< SEARCH\nBLOCK = 64  # tune: 32, 64\n=======\n>>>>>>> REPLACE"
    assert source(answer) == PARENT.replace("BLOCK = 64  # tune: 32, 64\n", "")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I would use wider loads.", "no fenced ```python block"),
        ("```python\nclass ModelNew:\n    pass\n", "not closed"),
        ("```python\nclass ModelNew(:\n    pass\n```", "does not parse: invalid syntax (line 1)"),
        ("```python\nclass Model:\n    pass\n```", "no class ModelNew"),
        ("```python\nclass ModelNew:\n    x = '\0'\n```", "does not parse"),
        (rewrite(PARENT), "equals the one that it should improve"),
        (rewrite("x = 1\n" * 50_000 + CHANGED), "at most 200000 are allowed"),
        (edit("return x.clamp(max=0)", "return x"), "no such lines, beginning 'return x.clamp(max=0)'"),
        (edit("", "return x"), "empty SEARCH part"),
        ("<<<<<<< SEARCH\nBLOCK = 64", "edit 1 is not finished: its ======= line"),
        ("<<<<<<< SEARCH\nBLOCK = 64\n=======\nBLOCK = 1", "its >>>>>>> REPLACE line"),
        (edit("import torch", "import torch (") + "\n", "does not parse"),
    ],
)
def test_an_answer_without_a_usable_source_says_why(answer: str, expected: str) -> None:
    assert expected in reason(answer)


def test_an_edit_that_matches_twice_is_refused() -> None:
    parent = CHANGED + "y = 1\n\n\ny = 1\n"
    assert "matches 2 places, beginning 'y = 1'" in reason(edit("y = 1", "y = 2"), parent)


def test_edits_without_a_parent_are_refused() -> None:
    assert "there is no kernel to edit" in reason(edit("a", "b"), None)


def test_the_failing_edit_is_counted() -> None:
    answer = edit("BLOCK = 64  # tune: 32, 64", "BLOCK = 128") + edit("nowhere", "x")
    assert reason(answer).startswith("edit 2 of 2 does not match")


def test_an_invalid_escape_in_a_kernel_string_is_no_fault() -> None:
    kernel = CHANGED + 'PTX = "\\d"\n'
    assert source(rewrite(kernel)) == kernel


def test_deep_nesting_is_a_fault_of_the_answer_and_not_of_the_reader() -> None:
    assert "does not parse" in reason(rewrite("class ModelNew: pass\nx = " + "(" * 5000 + ")" * 5000 + "\n"))


@pytest.mark.parametrize(
    ("text", "finish", "refusal", "expected"),
    [
        ("", "stop", "", "it is empty."),
        ("", "length", "", "cut off at the length limit before it began"),
        ("", "content_filter", "", "content filter"),
        ("", "stop", "I cannot help with that.", "the model refused: I cannot help with that."),
        (
            "```python\nclass ModelNew:",
            "length",
            "",
            "cut off at the length limit (the code block is not closed",
        ),
    ],
)
def test_answers_that_say_nothing_usable(text: str, finish: str, refusal: str, expected: str) -> None:
    verdict = judge(text, finish, refusal, None)
    assert isinstance(verdict, Malformed)
    assert expected in verdict.reason


def test_an_answer_cut_off_after_its_code_is_used() -> None:
    assert judge(rewrite() + "As you can see, the", "length", "", PARENT) == NewSource(
        source=CHANGED, note="Calls the fused operation."
    )


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    read_answer(text, PARENT)


BODY = st.lists(st.text(alphabet=string.ascii_letters + " =()<>{}\t", max_size=30), min_size=1, max_size=8)


@given(BODY)
def test_any_lines_survive_the_way_through_a_fenced_block(body: list[str]) -> None:
    kernel = "class ModelNew: pass\n" + "".join(f"# {line}\n" for line in body)
    assert source(rewrite(kernel), None) == kernel


@given(BODY, st.data())
def test_an_edit_changes_its_lines_and_no_others(body: list[str], data: st.DataObject) -> None:
    lines = [f"# {number} {line.rstrip()}" for number, line in enumerate(body)]
    at = data.draw(st.integers(0, len(lines) - 1))
    parent = "class ModelNew: pass\n" + "\n".join(lines) + "\n"
    expected = "class ModelNew: pass\n" + "\n".join([*lines[:at], "# changed", *lines[at + 1 :]]) + "\n"
    assert source(edit(lines[at], "# changed"), parent) == expected
