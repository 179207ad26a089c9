"""What a task's `get_workloads()` says, read without running it, and who sees which of them."""

import pytest

from kbopt.core.errors import UserError
from kbopt.core.workloads import Workload, judged_of, selected, shown_source, workloads_of

BEFORE = "import torch\n\n\ndef get_inputs(rows=4):\n    return [torch.rand(rows)]\n\n\n"
SOURCE = (
    BEFORE
    + '''def get_workloads():
    """Sizes as they are met."""
    # The secret one has 77 rows.
    return [
        {"name": "small", "args": {"rows": 8}},
        {"name": "large", "args": {"rows": 4096}, "weight": 3},
        {"name": "odd", "args": {"rows": 77}, "role": "hidden"},
        {"name": "last", "args": {"rows": 123}, "role": "held_out"},
    ]


class Model: ...
'''
)


def names(source: str) -> list[str]:
    return [workload.name for workload in workloads_of(source)]


def with_entries(text: str) -> str:
    return f"def get_workloads():\n    return {text}\n"


def test_a_task_that_names_none_has_one_workload_without_a_name():
    assert workloads_of(BEFORE) == (Workload(),)
    assert shown_source(BEFORE) == BEFORE
    assert selected(BEFORE, "shown", "it") == selected(BEFORE, "all", "it") == BEFORE


def test_workloads_are_read_in_their_order_with_their_roles_and_weights():
    assert workloads_of(SOURCE) == (
        Workload(name="small", arguments={"rows": 8}),
        Workload(name="large", arguments={"rows": 4096}, weight=3.0),
        Workload(name="odd", arguments={"rows": 77}, role="hidden"),
        Workload(name="last", arguments={"rows": 123}, role="held_out"),
    )


def test_a_search_judges_what_is_shown_or_hidden_and_the_final_verdict_all():
    found = workloads_of(SOURCE)

    assert [w.name for w in judged_of(found, held_out=False)] == ["small", "large", "odd"]
    assert judged_of(found, held_out=True) == found


def test_a_proposer_sees_nothing_of_what_is_not_shown():
    shown = shown_source(SOURCE)

    assert workloads_of(shown) == workloads_of(SOURCE)[:2]
    assert "77" not in shown
    assert "123" not in shown
    assert shown.startswith(BEFORE)
    assert shown.endswith("class Model: ...\n")
    assert shown_source(shown) == shown


def test_a_function_that_draws_one_workload_alone_is_seen_with_it():
    drawn = "".join(f"@cached\ndef get_inputs_of_{n}():\n    return [{n + 1}77]\n\n\n" for n in range(3))
    roles = ("shown", "hidden", "held_out")
    entries = [{"name": f"w{n}", "args": {"workload": n}, "role": roles[n]} for n in range(3)]
    source = f"{drawn}def get_inputs_of_all(): ...\n\n\n{with_entries(repr(entries))}"

    assert shown_source(source) == (
        "@cached\ndef get_inputs_of_0():\n    return [177]\n\n\ndef get_inputs_of_all(): ...\n\n\n"
        "def get_workloads():\n    return [\n        {'name': 'w0', 'args': {'workload': 0}},\n    ]\n"
    )
    assert "get_inputs_of_1" not in selected(source, "w2", "it")
    assert "get_inputs_of_2" in selected(source, "all", "it")


def test_a_selection_is_a_task_with_these_workloads():
    assert names(selected(SOURCE, "shown", "it")) == ["small", "large"]
    assert [w.role for w in workloads_of(selected(SOURCE, "all", "it"))] == ["shown"] * 2 + ["hidden"] * 2
    assert workloads_of(selected(SOURCE, "last, small", "it")) == (
        Workload(name="last", arguments={"rows": 123}),
        Workload(name="small", arguments={"rows": 8}),
    )


@pytest.mark.parametrize(
    ("source", "selection", "told"),
    [
        (SOURCE, "smal", "unknown workload in --workloads, of my.py, 'smal'. Did you mean small"),
        (BEFORE, "small", "--workloads small: my.py names no workloads; leave the option out"),
    ],
)
def test_an_unknown_workload_is_told_with_those_that_there_are(source: str, selection: str, told: str):
    with pytest.raises(UserError) as error:
        selected(source, selection, "my.py")

    assert told in str(error.value)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ("[]", "has 0 workloads; 1 to 64 are allowed"),
        ("[make(8)]", "holds more than plain values"),
        ("[{'name': 'a', 'args': {'dtype': torch.half}}]", "a dtype is its name"),
        ("{'a': 1}", "returns a dict"),
        ("['a']", "entry 1 is a str; it has to be a dictionary"),
        ("[{'name': 'a'}, {'name': 'a'}]", "the name a is given twice"),
        ("[{'name': 'a', 'arg': {}}]", "unknown field in my.py, get_workloads() in line 1: entry 1,"),
        ("[{'args': {}}]", "name is None"),
        ("[{'name': 'shown'}]", "neither shown nor all"),
        ("[{'name': 'a/b'}]", "name is 'a/b'"),
        ("[{'name': 'a', 'args': [1]}]", "args is [1]; it has to be a dictionary"),
        ("[{'name': 'a', 'role': 'secret'}]", "unknown role in my.py, get_workloads() in line 1: entry 1,"),
        ("[{'name': 'a', 'weight': 0}]", "weight is 0; it has to be a number above zero"),
        ("[{'name': 'a', 'weight': True}]", "weight is True"),
        ("[{'name': 'a', 'weight': 1" + "0" * 400 + "}]", "it has to be a number above zero, from 1e-06 to"),
        (
            "[{'name': 'a', 'weight': 5e-324}]",
            "weight is 5e-324; it has to be a number above zero, from 1e-06",
        ),
        ("[{'name': 'a', 'args': {'n': 1e999}}]", "n of args is inf; allowed are finite numbers"),
        ("[{'name': 'a', 'args': {'n': {1}}}]", "n of args is {1}; allowed are finite numbers"),
        ("[{'name': 'a', 'role': 'hidden'}]", "shows no workload"),
        ("[{'name': 'a', 'args': {'n': 1}}, {'name': 'b', 'args': {'m': 1}}]", "of a and b differ in m, n"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_do(entries: str, told: str):
    with pytest.raises(UserError) as error:
        workloads_of(with_entries(entries), "my.py")

    assert told in str(error.value)
    assert "my.py, get_workloads() in line 1" in str(error.value)


def test_a_function_that_computes_its_workloads_is_told_to_write_them_out():
    source = "def get_workloads():\n    sizes = [1, 2]\n    return [{'name': str(n)} for n in sizes]\n"

    with pytest.raises(UserError, match="write it out"):
        workloads_of(source)


FUNCTION = "def get_workloads():\n    return [{'name': 'a'}, {'name': 'b', 'role': 'hidden'}]\n"


@pytest.mark.parametrize(
    "source",
    [
        f"async {FUNCTION}",
        f"{FUNCTION}{FUNCTION}",
        f"if True:\n    {FUNCTION.replace(chr(10), chr(10) + '    ')}",
        "get_workloads = lambda: [{'name': 'b', 'role': 'hidden'}]\n",
        "from sizes import get_workloads\n",
        "class get_workloads: ...\n",
    ],
)
def test_workloads_that_would_not_be_read_are_refused_for_they_would_be_shown(source: str):
    with pytest.raises(UserError, match=r"my\.py, line \d+ binds get_workloads in another way: write it out"):
        workloads_of(source, "my.py")


def test_a_method_of_that_name_is_another_one():
    assert workloads_of(f"class Sizes:\n    def get_workloads(self): ...\n\n\n{FUNCTION}")[1].name == "b"


def test_workloads_take_no_arguments():
    with pytest.raises(UserError, match=r"my\.py, get_workloads\(\) in line 1 takes arguments"):
        workloads_of(FUNCTION.replace("()", "(n)"), "my.py")


def test_what_ends_a_line_for_python_alone_moves_no_line():
    source = f"# a form feed \x0c and a line separator \u2028 end no line\n{FUNCTION}class Model: ...\n"

    assert shown_source(source).endswith("'args': {}},\n    ]\nclass Model: ...\n")
