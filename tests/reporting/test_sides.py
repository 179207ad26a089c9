"""Sides of a comparison: ratios, verdicts and settings by literals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.reporting.scoreboard import Row
from kbopt.reporting.sides import Difference, Side, against, side_by_side, table, tasks, told


def row(task: str, eager: float | None = None, seed: int = 0, **more: Any) -> Row:
    over = {} if eager is None else {"eager": eager}
    return Row(task=task, seed=seed, fate="correct" if over else "unsolved", over=over, **more)


def side(name: str, *rows: Row, **setup: str) -> Side:
    return Side(name=name, kind="benchmark", setup=setup, rows=rows)


def test_the_ratio_is_over_what_both_have_correct() -> None:
    first = side("a", row("x", 1.0), row("y", 2.0), row("z"), row("only"))
    found = against(first, side("b", row("x", 2.0), row("y", 16.0), row("z", 5.0)))
    assert (found.common, found.both_correct, found.agreeing) == (3, 2, 2)
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(4.0)
    assert (found.ratio.low, found.ratio.high) == (pytest.approx(2.0), pytest.approx(8.0))
    assert found.differing == (Difference(task="z", first="unsolved", second="correct"),)


def test_faster_with_confidence_needs_intervals_that_lie_apart() -> None:
    first = side("a", row("x", 1.0, interval=(0.9, 1.1)), row("y", 1.0, interval=(0.9, 1.1)))
    second = side("b", row("x", 1.2, interval=(1.0, 1.3)), row("y", 0.5, interval=(0.4, 0.6)))
    assert (against(first, second).faster, against(first, second).slower) == (0, 1)
    assert (against(second, first).faster, against(second, first).slower) == (1, 0)


def test_audits_agree_by_verdict_and_not_by_what_it_counts_as() -> None:
    first = side("a", row("x", verdict="wrong_answer"), row("y", 1.0, verdict="measured"))
    second = side("b", row("x", verdict="rejected reused_output"), row("y", 3.0, verdict="measured"))
    found = against(first, second)
    assert found.differing == (Difference(task="x", first="wrong_answer", second="rejected reused_output"),)
    assert "the same verdict for 1 (50%)" in told(found)[0]


def test_sides_without_a_common_task_say_so() -> None:
    found = against(side("a", row("x", 1.0)), side("b", row("y", 1.0)))
    assert found.ratio is None
    assert told(found) == ("b and a share no task: there is nothing to put side by side.",)


def test_only_settings_that_differ_are_told_and_the_dangerous_ones_warn() -> None:
    one = side("a", row("x"), device="H100", protocol="p", models="")
    two = side("b", row("x"), device="H200", protocol="p", models="openai/gpt-5")
    three = side("c", row("x"), device="H100", protocol="p")
    found = side_by_side([one, two, three])
    assert {setting.name: setting.values for setting in found.settings} == {
        "device": ("H100", "H200", "H100"),
        "models": ("", "openai/gpt-5", "?"),
    }
    (warning,) = found.warnings
    assert "Measured on different devices (H100; H200)" in warning


def test_a_setting_that_one_side_does_not_record_is_told_unless_it_was_left_at_its_default() -> None:
    bench = side("bench", row("x"), algorithm="PS", protocol="p", models="")
    audit = side("audit", row("x"), protocol="p")
    found = {one.name: one.values for one in side_by_side([bench, audit]).settings}
    assert found == {"algorithm": ("PS", "?")}


def test_tables_have_a_line_for_each_side_and_for_each_task() -> None:
    sides = [side("a", row("x", 2.0, interval=(1.9, 2.1))), side("b", row("x"), row("y", 3.0))]
    assert [line[0] for line in table(side_by_side(sides))[1:]] == ["a", "b"]
    assert tasks(side_by_side(sides)) == [
        ["task", "a", "b"],
        ["x", "2.00x [1.90, 2.10]", "unsolved"],
        ["y", "–", "3.00x"],
    ]


SPEEDUPS = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.floats(0.01, 100), min_size=1)


@given(SPEEDUPS, SPEEDUPS)
def test_the_other_way_round_the_ratio_is_its_inverse(
    one: dict[str, float | None], two: dict[str, float | None]
) -> None:
    first = side("a", *(row(task, speedup) for task, speedup in one.items()))
    second = side("b", *(row(task, speedup) for task, speedup in two.items()))
    there, back = against(first, second), against(second, first)
    assert (there.common, there.both_correct, there.agreeing) == (
        back.common,
        back.both_correct,
        back.agreeing,
    )
    if there.ratio and back.ratio:
        assert there.ratio.mean * back.ratio.mean == pytest.approx(1.0)
        assert there.ratio.low <= there.ratio.mean <= there.ratio.high


@given(SPEEDUPS)
def test_a_side_against_itself_is_one(one: dict[str, float | None]) -> None:
    same = side("a", *(row(task, speedup) for task, speedup in one.items()))
    found = against(same, same)
    assert (found.agreeing, found.differing) == (found.common, ())
    if found.ratio:
        assert (found.ratio.mean, found.ratio.low, found.ratio.high) == (1.0, 1.0, 1.0)
