"""The fold of a journal: figures from events whose totals are known by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.core.costs import Rent, Usage
from kbopt.core.evaluations import Result, Seconds, Span
from kbopt.core.events import (
    Asked,
    BackendStarted,
    Dropped,
    Ended,
    Entry,
    Evaluated,
    Event,
    InfraFailed,
    Opened,
    ProposalFailed,
    Proposed,
    Rented,
    Summarized,
)
from kbopt.core.outcomes import Audit, Crashed, Measured, Outcome, WrongAnswer
from kbopt.core.proposals import Candidate
from kbopt.reporting.history import History, fold
from kbopt.reporting.kept_texts import TEXT_LIMIT_CHARS
from tests.support.journals import entries


def journal(*timed: tuple[float, Event]) -> list[Entry]:
    return [Entry(number=i, time=1000.0 + at, event=event) for i, (at, event) in enumerate(timed, start=1)]


def measured(speedup: float) -> Measured:
    return Measured(
        kernel_ms=(1.0, 1.0),
        reference_ms=(speedup, speedup),
        speedup=speedup,
        speedup_ci=(speedup - 0.1, speedup + 0.1),
        native_ms=1.0,
        wall_ms=1.0,
        audit=Audit(custom_kernel=True),
    )


def result(outcome: Outcome, *, device_s: float = 0.0, spans: tuple[Span, ...] = (), log: str = "") -> Result:
    return Result(
        outcome=outcome,
        feedback="",
        device="cpu",
        protocol="p",
        boot="b",
        seconds=Seconds(),
        device_s=device_s,
        spans=spans,
        log=log,
    )


def proposed(
    name: str, parent: str | None = None, version: int = 0, usage: tuple[Usage, ...] = ()
) -> Proposed:
    candidate = Candidate(
        id=name,
        source=f"X = 1  # tune: 1, 2\n# {name}",
        parent=parent,
        proposer="t",
        memory_version=version,
        usage=usage,
    )
    return Proposed(candidate=candidate)


def evaluated(name: str, outcome: Outcome, *, repeat: int = 0, cached: bool = False, **more) -> Evaluated:
    return Evaluated(candidate=name, result=result(outcome, **more), repeat=repeat, cached=cached)


def test_a_cache_hit_counts_as_a_candidate_but_as_no_evaluation():
    history = fold(
        journal(
            (0, proposed("a")),
            (1, evaluated("a", measured(1.5))),
            (2, proposed("b")),
            (3, evaluated("b", measured(1.5), cached=True)),
        )
    )
    assert (history.evaluations, history.cached) == (1, 1)
    assert dict(history.by_outcome) == {"measured": 2}
    assert history.best.candidate.id == "b"  # the newest of equals, as in the search


def test_a_repeat_moves_the_best_to_the_highest_mean():
    history = fold(
        journal(
            (0, proposed("lucky")),
            (0, proposed("steady")),
            (1, evaluated("steady", measured(1.8))),
            (2, evaluated("lucky", measured(2.0))),
            (3, evaluated("lucky", measured(1.2), repeat=1)),
        )
    )
    assert history.best.candidate.id == "steady"
    assert [(p.candidate, round(p.speedup, 2), p.evaluations) for p in history.progress] == [
        ("steady", 1.8, 1),
        ("lucky", 2.0, 2),
        ("steady", 1.8, 3),
    ]


def test_a_kernel_that_works_only_sometimes_is_worth_the_mean_with_its_failures():
    history = fold(
        journal(
            (0, proposed("flaky")),
            (1, evaluated("flaky", measured(2.0))),
            (2, evaluated("flaky", WrongAnswer(reason="now and then"), repeat=1)),
        )
    )
    node = history.nodes["flaky"]
    assert (node.speedup, node.status) == (1.0, "wrong_answer")


def test_the_time_between_sessions_is_not_the_searchs_time():
    history = fold(
        journal(
            (0, Opened(session=1)),
            (60, proposed("a")),
            (10_000, Opened(session=2)),
            (10_060, evaluated("a", measured(1.1), device_s=30.0)),
        )
    )
    assert history.minutes == pytest.approx(2.0)
    assert history.busy_fraction == pytest.approx(0.25)
    assert history.sessions == 2


def test_a_clock_that_was_set_back_does_not_take_time_away():
    history = fold(journal((0, Opened(session=1)), (60, proposed("a")), (30, evaluated("a", measured(1.1)))))
    assert history.minutes == pytest.approx(1.0)


def test_resuming_takes_back_the_end():
    ended = journal((0, Opened(session=1)), (1, Ended(reason="stopped")))
    assert fold(ended).ended == "stopped"
    assert fold([*ended, Entry(number=3, time=1002.0, event=Opened(session=2))]).ended is None


def test_staleness_counts_the_results_between_brief_and_result():
    history = fold(
        journal(
            (0, proposed("a", version=0)),
            (0, proposed("b", version=0)),
            (1, evaluated("a", measured(1.0))),
            (2, evaluated("b", measured(1.0))),
        )
    )
    assert [node.staleness for node in history.nodes.values()] == [0, 1]


def test_money_is_counted_wherever_it_was_spent():
    paid = (Usage(model="m", prompt_tokens=10, completion_tokens=5, usd=0.25),)
    unpriced = (Usage(model="m", prompt_tokens=1, completion_tokens=1, usd=None),)
    history = fold(
        journal(
            (0, proposed("a", usage=paid)),
            (1, ProposalFailed(brief="b", reason="empty", usage=paid)),
            (2, Summarized(text="t", memory_version=0, usage=unpriced)),
        )
    )
    assert (history.usd, history.tokens, history.spend["m"].unpriced_requests) == (0.5, 32, 1)
    assert (history.proposals, history.proposals_failed) == (2, 1)


def test_the_time_line_holds_briefs_builds_and_the_lease():
    spans = (
        Span(stage="queue", start=1030.0, seconds=30.0),
        Span(stage="compile", start=1060.0, seconds=60.0),
        Span(stage="check", start=1120.0, seconds=6.0),
        Span(stage="time", start=1126.0, seconds=12.0),
    )
    asked = Asked(
        brief="a", parent=None, exemplars=(), summary_version=0, seed=1, memory_version=0, action="propose"
    )
    history = fold(
        journal(
            (0, asked),
            (30, proposed("a")),
            (138, evaluated("a", measured(1.0), spans=spans)),
        )
    )
    assert [(bar.group, bar.stage, round(bar.start, 2), round(bar.end, 2)) for bar in history.bars] == [
        ("explorer", "propose", 0.0, 0.5),
        ("compile", "compile", 1.0, 2.0),
        ("device lease", "check", 2.0, 2.1),
        ("device lease", "time", 2.1, 2.3),
    ]
    assert history.lease_s == pytest.approx(18.0)


def test_the_same_error_with_other_numbers_is_the_same_error():
    def crash(name: str, text: str) -> Evaluated:
        return evaluated(name, Crashed(reason=text, how="SIGSEGV"))

    history = fold(
        journal(
            (0, proposed("a")),
            (0, proposed("b")),
            (1, crash("a", "/tmp/x1/k.cu:12: fault at 0x7f00")),
            (2, crash("b", "/tmp/y/k.cu:7: fault at 0x9c")),
        )
    )
    assert history.errors.most_common() == [(("crashed", "SIGSEGV: …/k.cu:#: fault at #"), 2)]


def test_drops_failures_and_cold_starts_are_kept():
    history = fold(
        journal(
            (0, BackendStarted(boot="b", device="cpu", cold=True)),
            (1, proposed("a")),
            (2, Dropped(candidate="a", neighbour="z", distance=0.01)),
            (3, InfraFailed(what="container", reason="preempted", attempt=1)),
        )
    )
    assert history.nodes["a"].status == "dropped"
    assert history.dropped[0].neighbour == "z"
    assert [message.what for message in history.failures] == ["container, attempt 1"]


def test_rent_adds_up_by_gpu_and_counts_as_money_spent():
    history = fold(
        journal(
            (0, Rented(rent=Rent(gpu="L4", seconds=10.0, usd=0.25))),
            (1, Rented(rent=Rent(gpu="H100", seconds=1.0, usd=0.5))),
            (2, Rented(rent=Rent(gpu="L4", seconds=30.0, usd=0.75))),
        )
    )
    assert history.rents == {
        "L4": Rent(gpu="L4", seconds=40.0, usd=1.0),
        "H100": Rent(gpu="H100", seconds=1.0, usd=0.5),
    }
    assert history.usd == 1.5


def test_a_log_of_a_megabyte_is_cut_to_its_ends():
    log = "start" + "x" * 1_000_000 + "end"
    history = fold(journal((0, proposed("a")), (1, evaluated("a", WrongAnswer(reason="no"), log=log))))
    kept = history.nodes["a"].results[0].log
    assert len(kept) < TEXT_LIMIT_CHARS + 100
    assert kept.startswith("start")
    assert kept.endswith("end")
    assert "980,008 characters left out" in kept


def test_texts_are_held_for_a_bounded_number_and_the_best_is_among_them():
    full, bounded = fold(entries(600)), fold(entries(600), texts_kept=50)
    held = [node for node in bounded.nodes.values() if node.has_texts]
    assert len(held) <= 150
    assert bounded.best.has_texts
    assert bounded.best.candidate == full.best.candidate
    assert (bounded.evaluations, bounded.by_outcome, bounded.progress, bounded.usd) == (
        full.evaluations,
        full.by_outcome,
        full.progress,
        full.usd,
    )


def test_what_is_shown_holds_the_fastest_the_newest_and_the_bests_ancestors():
    history = fold(entries(400))
    shown = history.shown(60)
    ids = {node.candidate.id for node in shown}
    fastest = sorted((n for n in history.nodes.values() if n.speedup), key=lambda n: -n.speedup)[:30]
    assert {node.candidate.id for node in fastest} <= ids
    assert history.best.candidate.parent in ids
    assert list(history.nodes)[-1] in ids
    assert len(shown) == 60
    assert [node.index for node in shown] == sorted(node.index for node in shown)


EVERYTHING = tuple(entries(60))


@given(cut=st.integers(0, 200))
def test_a_journal_cut_off_anywhere_can_be_read(cut: int):
    history = fold(EVERYTHING[:cut])
    assert history.entries == min(cut, len(EVERYTHING))
    assert sum(history.by_outcome.values()) == history.evaluations + history.cached - history.repeats


@given(cut=st.integers(0, 180))
def test_folding_in_two_parts_is_folding_at_once(cut: int):
    history = History()
    history.add_all(EVERYTHING[:cut])
    history.add_all(EVERYTHING[cut:])
    assert replace_nodes(history) == replace_nodes(fold(EVERYTHING))


def replace_nodes(history: History) -> tuple[object, ...]:
    """What can be compared of a history: its nodes' values and its totals."""
    nodes = tuple((n.status, n.speedup, n.staleness, n.changed) for n in history.nodes.values())
    bars = tuple(replace(bar) for bar in history.bars)
    return nodes, bars, history.progress, history.minutes, history.usd, history.busy_fraction
