"""Reading and changing `tune:` comments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.tune_comments import Tunable, parse, substitute


def tunable(name, value, *choices):
    return Tunable(name=name, value=value, choices=choices)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("BLOCK = 64  # tune: 16, 32, 64", tunable("BLOCK", "64", "16", "32", "64")),
        ("BLOCK: int = 64 # tune: 16,32", tunable("BLOCK", "64", "16", "32")),
        ("#define UNROLL 4  // tune: 1, 2, 4, 8", tunable("UNROLL", "4", "1", "2", "4", "8")),
        ("  #  define UNROLL (4 + 4) /* tune: 4, 8 */", tunable("UNROLL", "(4 + 4)", "4", "8")),
        ("constexpr int TILE = 8; // tune: 8, 16", tunable("TILE", "8", "8", "16")),
        ("    num_warps=4)  # tune: 4, 8", tunable("num_warps", "4", "4", "8")),
        ("    kernel(x, BLOCK=64,  # tune: 32, 64", tunable("BLOCK", "64", "32", "64")),
        ('LEVEL = "-O3"  # tune: "-O2", "-O3"', tunable("LEVEL", '"-O3"', '"-O2"', '"-O3"')),
        (
            'F = ["-a", "-b"]  # tune: ["-a"], ["-a", "-b"]',
            tunable("F", '["-a", "-b"]', '["-a"]', '["-a", "-b"]'),
        ),
        ('S = "a,b"  # tune: "a,b", "c#d"', tunable("S", '"a,b"', '"a,b"', '"c#d"')),
        ("SHAPE = (8, 16)  # tune: (8, 16), (16, 8)", tunable("SHAPE", "(8, 16)", "(8, 16)", "(16, 8)")),
        ("N = 5  # tune: 7, 7, 9", tunable("N", "5", "7", "9")),
        ("N = 5  # tune:", tunable("N", "5")),
    ],
)
def test_an_assignment_with_a_tune_comment_is_a_tunable(line, expected):
    assert parse(line) == (expected,)


@pytest.mark.parametrize(
    "line",
    [
        "# tune: 1, 2",
        "x == 3  # tune: 1, 2",
        "BLOCK = 64  # tuned: 1, 2",
        "BLOCK = 64",
        "call(64)  # tune: 1, 2",
        "",
    ],
)
def test_other_lines_are_no_tunables(line):
    assert parse(line) == ()


def test_tunables_inside_a_c_string_are_found_in_order():
    source = 'A = 1  # tune: 1, 2\nC = r"""\n#define B 3  // tune: 3, 4\n"""\n'

    assert [item.name for item in parse(source)] == ["A", "B"]


def test_substituting_changes_the_values_and_nothing_else():
    source = 'A = 1  # tune: 1, 2\nA1 = 1\nC = """\n#define B 3  // tune: 3, 4\nint y = B * 3;\n"""\n'

    assert substitute(source, {"A": "2", "B": "4"}) == source.replace("A = 1 ", "A = 2 ").replace(
        "B 3 ", "B 4 "
    )


def test_a_call_that_ends_on_the_line_stays_closed():
    assert substitute("f(x, N=(4))  # tune: 4, 8", {"N": "8"}) == "f(x, N=8)  # tune: 4, 8"


def test_a_name_that_is_tuned_on_two_lines_is_set_on_both():
    source = "A = 1  # tune: 1, 2\nA = 1  # tune: 1, 2\n"

    assert substitute(source, {"A": "2"}) == source.replace("= 1", "= 2")


def test_substituting_a_name_that_is_not_tuned_is_an_error():
    with pytest.raises(ValueError, match="the source tunes no B, C"):
        substitute("A = 1  # tune: 1, 2\nB = 2\n", {"B": "1", "C": "2"})


def test_alternatives_leave_out_the_present_value():
    assert tunable("A", "2", "1", "2", "3").alternatives == ("1", "3")


names = st.from_regex(r"[A-Z_]{1,8}", fullmatch=True)
numbers = st.integers(-999, 999).map(str)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, st.lists(numbers, min_size=1, max_size=5, unique=True), min_size=1), st.data())
def test_what_is_substituted_is_what_is_read_back(spaces, data):
    source = "".join(
        f"{name} = {choices[0]}  # tune: {', '.join(choices)}\n" for name, choices in spaces.items()
    )
    chosen = {name: data.draw(st.sampled_from(choices)) for name, choices in spaces.items()}

    changed = substitute(source, chosen)

    assert {item.name: item.value for item in parse(changed)} == chosen
    assert [item.choices for item in parse(changed)] == [item.choices for item in parse(source)]


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_any_text_is_parsed_and_left_alone_without_values(text):
    parse(text)
    assert substitute(text, {}) == text
