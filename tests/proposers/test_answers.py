"""Reading a model's answer."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.proposers.answers import Malformed, NewSource, judge, read_answer
from tests.support.llm_briefs import CHANGED, PARENT, edit, rewrite

OLD = "        return x.clamp(min=0)"
NEW = "        return torch.relu(x)"
USE = "```python\nmodel = ModelNew()\ny = model(torch.randn(4))\n```\n"
DOCUMENTED = f'"""Doc.\n\n{USE}"""\n{CHANGED}'
COMMENTED = CHANGED + "# ```python\n# m = ModelNew()\n# ```\nLIMIT = 3\n"


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


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{CHANGED.rstrip()}```\n",
        f"```python\n{CHANGED}``` It reads each value once.\n",
        f"Here it is: ```python\n{CHANGED}```\n",
        f"Here it is: ```\n{CHANGED}```\n",
        f"```python {CHANGED}```\n",
        f"```python import os\n{CHANGED}```\n".replace("import os\n", ""),
        f"~~~python\n{CHANGED}~~~\n",
        f'```python title="kernel.py"\n{CHANGED}```\n',
        f"```Python3\n{CHANGED}````\n",
        f"```python\n{CHANGED}",
        f"I use ```x``` and ``y``.\n```\n{CHANGED}```\n",
        "1. The kernel:\n   ```python\n"
        + "".join(f"   {line}".rstrip() + "\n" for line in CHANGED.split("\n")[:-1])
        + "   ```\n",
        "> ```python\n" + "".join(f"> {line}\n" for line in CHANGED.split("\n")[:-1]) + "> ```\n",
        CHANGED,
        f"{CHANGED}```\n",
        f"Here is the kernel:\n\n{CHANGED}",
        f"<answer>\n{CHANGED}</answer>\n",
        f"<answer>\n```python\n{CHANGED}```\n</answer>\n",
        f'<pre><code class="language-python">{CHANGED}</code></pre>\n',
        f"```{{.python .numberLines}}\n{CHANGED}```\n",
    ],
)
def test_a_fence_may_stand_where_models_put_it(answer: str) -> None:
    assert source(answer) == CHANGED


@pytest.mark.parametrize("kernel", [DOCUMENTED, COMMENTED])
def test_fences_inside_of_a_kernel_do_not_end_it(kernel: str) -> None:
    assert source(rewrite(kernel)) == kernel
    assert source(f"~~~python\n{kernel}~~~\n") == kernel


@pytest.mark.parametrize(
    "after",
    [
        USE,
        "```python\nfrom kernel import ModelNew\n\ndef check(x):\n    return ModelNew()(x)\n```\n",
        "```python\nModelNew = torch.compile(ModelNew)\n\ndef made():\n    return ModelNew()\n```\n",
        "```python\nclass Timed(ModelNew):\n    def forward(self, x):\n        return x\n```\n",
        "```text\nModelNew is fast.\n```\n",
        "```python\nclass ModelNew(nn.Mod",
        "```python\nclass ModelNew(torch.nn.Module):\n    ...\n```\n",
        rewrite(PARENT),
        "```cpp\nstruct ModelNew {};\n```\n",
    ],
)
def test_a_complete_kernel_is_kept_whatever_follows(after: str) -> None:
    for finish in ("stop", "length"):
        verdict = judge(f"{rewrite()}\nThen:\n{after}", finish, "", PARENT)
        assert verdict == NewSource(source=CHANGED, note="Calls the fused operation.")


@pytest.mark.parametrize(
    "thought",
    [
        "<think>\nA draft:\n```python\nclass ModelNew(nn.Module):\n    ...\nno\n</think>\n",
        f"<think>\n{rewrite(PARENT + 'x = 1')}</think>\n",
        "I begin with\n```python\nclass ModelNew:\n    return 0\n</think>\n",
        "<thinking>\n```\n</thinking>\n<Think>\n<<<<<<< SEARCH\n</THINK>\n",
        "[THINK]\n```python\n[/THINK]",
        "<think>I close with </think> at the end.\n```python\n</think>\n",
        "<|channel|>analysis<|message|>```python\nx\n<|end|><|start|>assistant<|channel|>final<|message|>",
        "<scratchpad>\n```python\nclass ModelNew:\n    ...\n</scratchpad>\n",
        "\u25c1think\u25b7\n```python\nclass ModelNew:\n    ...\n\u25c1/think\u25b7\n",
    ],
)
def test_what_a_model_thought_aloud_is_no_part_of_its_answer(thought: str) -> None:
    assert read_answer(thought + rewrite(), PARENT) == NewSource(
        source=CHANGED, note="Calls the fused operation."
    )
    assert source(thought + edit(OLD, NEW)) == CHANGED


def test_a_draft_in_reasoning_that_was_cut_off_is_no_answer() -> None:
    verdict = judge(f"<think>\nA draft:\n{rewrite()}Now", "length", "", PARENT)
    assert isinstance(verdict, Malformed)
    assert "cut off at the length limit (there is nothing in it besides the reasoning)" in verdict.reason


def test_code_that_was_cut_off_is_not_used_where_it_happens_to_parse() -> None:
    verdict = judge(f"```python\n{CHANGED[: CHANGED.index('.relu')]}", "length", "", PARENT)
    assert isinstance(verdict, Malformed)


def test_hundreds_of_fences_are_given_up_soon() -> None:
    assert "does not parse" in reason("```python\nclass ModelNew(:\n```\n" * 1000)


def test_line_ends_of_old_macs_are_read() -> None:
    assert source(rewrite().replace("\n", "\r")) == CHANGED


def test_windows_line_ends_are_read() -> None:
    assert source(rewrite().replace("\n", "\r\n")) == CHANGED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch\n", "\ufeffimport torch\n"),
        ("import torch\n", "\u200bimport torch\n"),
        ("    def", "\xa0\xa0\xa0\xa0def"),
        ("x.clamp", "\u2060x.clamp"),
    ],
)
def test_what_cannot_be_seen_does_not_stop_a_kernel(before: str, after: str) -> None:
    assert source(rewrite(CHANGED.replace(before, after, 1))) == CHANGED


def test_a_kernel_keeps_what_cannot_be_seen_where_it_does_not_matter() -> None:
    kernel = CHANGED + 'MARK = "a\xa0b"\n'
    assert source(rewrite(kernel)) == kernel


@pytest.mark.parametrize(
    "definition", ["ModelNew: type = Model", "from kernels import ModelNew", "import kernels as ModelNew"]
)
def test_a_model_may_get_its_name_in_any_way(definition: str) -> None:
    kernel = f"import torch\n\n{definition}\n"
    assert source(rewrite(kernel)) == kernel


def test_an_edit_replaces_the_lines_that_match() -> None:
    assert source(edit("        return x.clamp(min=0)", "        return torch.relu(x)")) == CHANGED


def test_an_edit_matches_whatever_white_space_ends_its_lines() -> None:
    assert source(edit("        return x.clamp(min=0)   ", "        return torch.relu(x)")) == CHANGED


@pytest.mark.parametrize(
    ("search", "replace"),
    [
        ("return x.clamp(min=0)", "return torch.relu(x)"),
        ("    return  x.clamp( min = 0 )", "    return torch.relu(x)"),
        (
            "def forward(self, x):\n    return x.clamp(min=0)",
            "def forward(self, x):\n    return torch.relu(x)",
        ),
        (f"def forward(self, x):\n{OLD}", f"def forward(self, x):\n{NEW}"),
        (f"\n    def forward(self, x):\n\n{OLD}\n", f"\n    def forward(self, x):\n{NEW}\n"),
        ("\t\treturn x.clamp(min=0)", "\t\treturn torch.relu(x)"),
        ("            return x.clamp(min=0)", "            return torch.relu(x)"),
        (
            "\tdef forward(self, x):\n\t\treturn x.clamp(min=0)",
            "\tdef forward(self, x):\n\t\treturn torch.relu(x)",
        ),
        (f"```python\n{OLD}\n```", f"```python\n{NEW}\n```"),
    ],
)
def test_an_edit_that_is_nearly_literal_is_applied_where_it_fits_one_place(search: str, replace: str) -> None:
    assert source(edit(search, replace)) == CHANGED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (">>>>>>> REPLACE", ">>>>>>> REPLACE (line 8)"),
        (">>>>>>> REPLACE", ">>>>>>> REPLACE```"),
        ("<<<<<<< SEARCH", "<<<<<<< SEARCH kernel.py"),
        ("<<<<<<< SEARCH", "  <<<<<<< SEARCH:"),
        ("=======", "========"),
        (">>>>>>> REPLACE", ">>>>>>>"),
        ("<<<<<<< SEARCH", "<<<<<<< search"),
        ("<<<<<<< SEARCH", "<<<<<<< ORIGINAL"),
        (">>>>>>> REPLACE", ">>>>>>> UPDATED"),
        ("<<<<<<< SEARCH", "<<<<<<< HEAD"),
        (">>>>>>> REPLACE", ">>>>>>> new"),
        ("<<<<<<< SEARCH", "Edit 1: <<<<<<< SEARCH"),
        ("<<<<<<< SEARCH", "- **<<<<<<< SEARCH**"),
        ("=======", "=" * 20),
    ],
)
def test_the_marks_of_an_edit_may_vary(before: str, after: str) -> None:
    assert source(edit(OLD, NEW).replace(before, after)) == CHANGED


HEADED = f'"""\nFast\n=======\nBLOCK = 64\n"""\n{PARENT}'


def test_an_edit_whose_divider_is_not_certain_is_refused() -> None:
    answer = edit("Fast\n=======\nBLOCK = 64", "Fast\n=======\nBLOCK = 128")
    assert reason(answer, HEADED).startswith(
        "edit 1 of 1 has 3 lines of ======= and fits in more than one way"
    )


def test_an_edit_with_a_heading_is_applied_where_one_reading_fits() -> None:
    expected = HEADED.replace("Fast\n=======\nB", "Quick\n=======\nB")
    answer = edit('Fast\n=======\nBLOCK = 64\n"""', 'Quick\n========\nBLOCK = 64\n"""')
    heading = HEADED.replace("=======", "=====")
    assert source(answer.replace("Fast\n=======", "Fast\n=====").replace("========", "======="), heading) == (
        expected
    )


def test_marks_may_be_shorter_and_what_launches_a_kernel_is_none() -> None:
    short = edit(OLD, NEW).replace("<<<<<<<", "<<<").replace("=======", "===").replace(">>>>>>>", ">>>")
    assert source(short) == CHANGED
    launch = CHANGED + 'CUDA = """\nrun\n<<<blocks, threads>>>(x);\n"""\n'
    assert source(rewrite(launch)) == launch


def test_a_complete_file_stands_in_for_edits_that_do_not_fit() -> None:
    assert source(edit("nowhere", "x") + rewrite()) == CHANGED
    assert "no such lines, beginning 'nowhere'" in reason(edit("nowhere", "x") + rewrite(PARENT))


def test_a_kernel_beside_marks_of_edits_is_taken_where_there_is_nothing_to_edit() -> None:
    assert source(edit("a", "b") + rewrite(), None) == CHANGED


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
        ("```python\nclass ModelNew:\n    def forward(", "not closed"),
        ("```python\nclass ModelNew(:\n    pass\n```", "does not parse: invalid syntax (line 1)"),
        ("```python\nclass Model:\n    pass\n```", "no class ModelNew"),
        (
            "```python\nclass ModelNew:\n    x = '\0'\n```",
            "parse: source code string cannot contain null bytes.",
        ),
        (rewrite(PARENT), "equals the one that it should improve"),
        (rewrite("x = 1\n" * 50_000 + CHANGED), "at most 200000 are allowed"),
        (edit("return x.clamp(max=0)", "return x"), "no such lines, beginning 'return x.clamp(max=0)'"),
        (edit("", "return x"), "empty SEARCH part"),
        ("<<<<<<< SEARCH\nBLOCK = 64", "edit 1 is not finished: its ======= line"),
        ("<<<<<<< SEARCH\nBLOCK = 64\n=======\nBLOCK = 1", "its >>>>>>> REPLACE line"),
        (edit("import torch", "import torch (") + "\n", "does not parse"),
        (edit("BLOCK = 64\n=======\n# end", "x"), "has 2 lines of ======= and fits in no way"),
        (edit(OLD, NEW) + ">>>>>>> REPLACE\n", "a >>>>>>> REPLACE line stands after edit 1 without"),
        (
            edit(f"class ModelNew(torch.nn.Module):\n{OLD}", NEW),
            "does not match: the kernel has no such lines",
        ),
        (
            edit("def forward(self, x):\nreturn x.clamp(min=0)", "pass"),
            "indented otherwise than the kernel's, beginning 'def forward(self, x):'",
        ),
        (f"<think>\n{rewrite()}</think>\nShall I write it?", "no fenced ```python block"),
        (f"<think>\n{rewrite()}</think>\n", "nothing in it besides the reasoning"),
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
