"""The benchmark's table: its arithmetic by literals and by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.core import codec
from kbopt.reporting.scoreboard import (
    FAST,
    KERNELBENCH,
    Board,
    Line,
    Row,
    board,
    boards,
    estimate,
    extent,
    markdown,
    shown,
    table,
)


def row(task: str, seed: int = 0, eager: float | None = None, **more: Any) -> Row:
    over = more.pop("over", {} if eager is None else {"eager": eager})
    fate = more.pop("fate", "correct" if over else "unsolved")
    return Row(task=task, seed=seed, fate=fate, over=over, **more)


def line(found: Board, over: str) -> Line:
    return next(one for one in found.lines if one.over == over)


def means(found: Line) -> dict[str, float]:
    return {p: share.mean for p, share in found.fast.items() if share}


def test_fast_p_counts_unsolved_tasks_and_the_mean_leaves_them_out() -> None:
    found = board("", [row("a", eager=0.8), row("b", eager=1.1), row("c", eager=2.2), row("d")])
    eager = line(found, "eager")
    assert means(eager) == {"0.5": 0.75, "1": 0.5, "1.2": 0.25, "2": 0.25}
    assert eager.solved is not None
    assert eager.geomean is not None
    assert (eager.solved.mean, eager.geomean.mean) == (0.75, pytest.approx((0.8 * 1.1 * 2.2) ** (1 / 3)))


def test_surely_faster_asks_for_the_whole_interval_and_a_kernel_of_its_own() -> None:
    found = board(
        "",
        [
            row("sure", eager=1.2, interval=(1.1, 1.3), own_kernel=True),
            row("by chance", eager=1.01, interval=(0.72, 1.43), own_kernel=True),
            row("by PyTorch", eager=1.2, interval=(1.1, 1.3)),
            row("unsolved"),
        ],
    )
    assert means(line(found, "eager"))["1"] == 0.75
    assert found.faster is not None
    assert found.faster.mean == 0.25
    assert ["surely faster", "25%", "–", "–", "–"] in table(found)


def test_a_threshold_must_be_passed() -> None:
    assert means(line(board("", [row("a", eager=1.0), row("b", eager=2.0)]), "eager"))["1"] == 0.5


def test_an_interval_is_over_seeds_and_none_is_told_of_one() -> None:
    one = [row("a", 0, eager=2.0), row("b", 0, eager=2.0)]
    two = [row("a", 1, eager=2.0), row("b", 1)]
    alone, both = (line(board("", rows), "eager").fast["1"] for rows in (one, one + two))
    assert shown(alone, ".0%") == "100%"
    assert shown(both, ".0%") == "75% [50%, 100%]"
    assert "one seed: no interval" in extent(board("", one))


def test_no_correct_kernel_gives_zero_shares_and_no_mean() -> None:
    found = board("", [row("a"), row("b", fate="no seed")])
    for one in found.lines:
        assert (means(one), one.geomean, one.missing) == (
            dict.fromkeys(("0.5", "1", "1.2", "2"), 0.0),
            None,
            0,
        )
    assert "1 without a seed kernel, which count as unsolved" in extent(found)


def test_a_baseline_that_is_not_known_is_no_zero() -> None:
    found = board("", [row("a", eager=2.0), row("b")])
    compiled = line(found, "compile")
    assert (compiled.solved, compiled.geomean, compiled.missing) == (None, None, 1)
    assert set(compiled.fast.values()) == {None}
    column = [cells[3] for cells in table(found)]
    assert column == ["compile", *["–"] * 7, "1"]
    assert [cells[0] for cells in table(found)][-1] == "solved, not measured"


def test_a_baseline_of_some_tasks_leaves_the_others_out() -> None:
    rows = [row("a", over={"eager": 2.0, "compile": 1.5}), row("b", eager=2.0), row("c")]
    compiled = line(board("", rows), "compile")
    assert (means(compiled)["1"], compiled.missing) == (0.5, 1)


def test_kernelbench_verdict_stands_beside_the_strict_one() -> None:
    rows = [row("a", eager=2.0, kernelbench=3.0), row("b", eager=2.0, kernelbench=0.0)]
    found = board("", rows)
    assert means(line(found, "eager"))["1"] == 1.0
    theirs = line(found, KERNELBENCH)
    assert means(theirs)["1"] == 0.5
    assert theirs.geomean is not None
    assert theirs.geomean.mean == pytest.approx(3.0)


@pytest.mark.parametrize("fate", ["refused", "unfinished"])
def test_a_task_that_a_seed_lacks_counts_for_none(fate: str) -> None:
    rows = [row("a", 0, eager=2.0), row("a", 1, eager=2.0), row("b", 0, eager=2.0), row("b", 1, fate=fate)]
    found = board("", rows)
    assert (found.num_tasks, found.num_seeds) == (1, 2)
    assert means(line(found, "eager"))["1"] == 1.0


def test_nothing_that_counts_is_a_table_of_dashes() -> None:
    found = board("", [row("a", fate="refused", reason="no | memory")])
    assert {cell for cells in table(found)[1:] for cell in cells[1:]} == {"–"}
    assert "no \\| memory" in markdown([row("a", fate="refused", reason="no | memory")], "T", [])


def test_levels_have_tables_of_their_own() -> None:
    rows = [row("level1/1", eager=2.0), row("level2/1"), row("level2/2")]
    assert [(one.name, one.num_tasks) for one in boards(rows)] == [
        ("level 1", 1),
        ("level 2", 2),
        ("all tasks", 3),
    ]
    assert [one.name for one in boards(rows[:1])] == ["all tasks"]


def test_costs_are_those_of_one_search() -> None:
    rows = [row("a", 0, usd=1.0, tokens=10), row("b", 0, usd=3.0), row("a", 1), row("b", 1)]
    found = board("", rows)
    assert found.usd is not None
    assert found.tokens is not None
    assert (found.usd.mean, found.usd.low, found.usd.high, found.tokens.mean) == (1.0, 0.0, 2.0, 2.5)


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.none() | st.floats(0.01, 100),
        roofline=st.none() | st.floats(0.01, 1),
    ),
    unique_by=lambda one: (one.task, one.seed),
    min_size=1,
)


@given(ROWS)
def test_shares_fall_with_p_and_intervals_hold_their_means(rows: list[Row]) -> None:
    found = board("", rows)
    eager = line(found, "eager")
    shares = [one.mean for one in (eager.solved, *eager.fast.values()) if one]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 1 + len(FAST)
    for one in (eager.geomean, found.roofline, *eager.fast.values()):
        assert one is None or one.low <= one.mean <= one.high


@given(ROWS)
def test_the_order_of_the_rows_changes_nothing(rows: list[Row]) -> None:
    assert table(board("", rows)) == table(board("", rows[::-1]))


@given(ROWS)
def test_rows_travel_as_json(rows: list[Row]) -> None:
    assert [codec.loads(Row, codec.dumps(one)) for one in rows] == rows


def test_an_estimate_of_nothing_is_none() -> None:
    assert estimate([]) is None
