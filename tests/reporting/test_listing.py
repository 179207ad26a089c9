"""The list of runs and one candidate, on terminals of any width and in a pipe."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from kbopt.cli.runs import runs, show
from kbopt.config import RunConfig
from kbopt.core import codec
from kbopt.core.errors import UserError
from kbopt.core.events import Evaluated, Proposed
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Trial
from kbopt.core.scoring import Standing
from kbopt.reporting.evidence import evidence
from kbopt.reporting.history import fold
from kbopt.reporting.listing import RunRow, print_candidate, print_runs
from kbopt.store.journal import SqliteJournal
from tests.support.journals import GELU, entries, settings

BEST = Standing(
    candidate="c1",
    speedup=1.2,
    speedup_ci=(1.1, 1.3),
    measurements=1,
    kernel_ms=1.0,
    reference_ms=1.2,
    custom_kernel=True,
    state="faster",
)
ROW = RunRow(
    name="runs/2026-11-23-gelu",
    task="quick/gelu",
    algorithm="PS_epsNet_Summarizer",
    seed=3,
    evaluations=1200,
    best=BEST,
    state="the budget of evaluations is spent",
    started=1_790_000_000.0,
)


def console(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=width, height=30)


def text_of(where: Console) -> str:
    return where.file.getvalue()


def test_in_a_pipe_each_run_is_one_whole_line():
    where = console(terminal=False)
    print_runs(where, [ROW])
    heading, line = text_of(where).splitlines()
    assert heading.split() == ["run", "task", "algorithm", "seed", "evaluations", "best", "started", "state"]
    for words in (ROW.name, ROW.task, ROW.algorithm, " 3 ", "1,200", "1.20x [1.10, 1.30]", ROW.state):
        assert words in line


def test_a_kernel_of_which_nothing_may_be_claimed_is_marked_in_the_list():
    where = console(terminal=False)
    slow = replace(BEST, speedup=1.03, speedup_ci=(0.96, 1.11), state="not faster")
    print_runs(where, [replace(ROW, best=slow), replace(ROW, best=replace(BEST, state="no custom kernel"))])
    first, second = text_of(where).splitlines()[1:]
    assert "1.03x [0.96, 1.11], not faster" in first
    assert "1.20x [1.10, 1.30], no custom kernel" in second


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_no_run_loses_its_name_or_its_speedup(width: int):
    where = console(terminal=True, width=width)
    print_runs(where, [ROW])
    lines = text_of(where).splitlines()
    assert max(map(len, lines)) <= width
    shown = "".join(line.split("  ")[0] for line in lines)
    assert ROW.name in shown
    assert "1.20x [1.10, 1.30]" in text_of(where)
    assert "1,200" in text_of(where)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path):
    config = RunConfig(name="good", task=GELU, settings=settings())
    journal = SqliteJournal.create(tmp_path / "good" / "journal.sqlite", codec.dumps(config))
    for entry in entries(5):
        journal.append(entry.event)
    journal.close()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "journal.sqlite").write_text("not a database")
    listed = CliRunner().invoke(runs, [str(tmp_path)])
    assert listed.exit_code == 0, listed.output
    assert str(tmp_path / "good") in listed.stdout
    assert "left out" in listed.stderr
    assert str(tmp_path / "bad") in listed.stderr


def test_a_folder_that_is_not_there_is_no_empty_list(tmp_path: Path):
    listed = CliRunner().invoke(runs, [str(tmp_path / "absent")])
    assert isinstance(listed.exception, UserError)
    assert "absent is no folder" in str(listed.exception)


def test_no_runs_say_how_to_make_one():
    where = console(terminal=False)
    print_runs(where, [])
    assert "no runs yet" in text_of(where)


def test_a_candidate_is_shown_with_source_diff_and_feedback_and_no_escape_sequence():
    hostile = "\x1b[2J\x1b]0;owned\x07 \u202e"
    events = [entry.event for entry in entries(30, hostile=hostile)]
    candidates = {e.candidate.id: e.candidate for e in events if isinstance(e, Proposed)}
    evaluation = next(e for e in events if isinstance(e, Evaluated) and candidates[e.candidate].parent)
    candidate = candidates[evaluation.candidate]
    where = console(terminal=False)
    parent = candidates[candidate.parent]
    print_candidate(
        where, Trial(candidate=candidate, results=(evaluation.result,)), parent_source=parent.source
    )
    shown = text_of(where)
    assert "class ModelNew" in shown
    assert "--- parent" in shown
    assert "feedback" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J" in shown


def test_a_measured_candidate_is_shown_with_what_makes_it_believable():
    events = [entry.event for entry in entries(30)]
    candidates = {e.candidate.id: e.candidate for e in events if isinstance(e, Proposed)}
    evaluation = next(
        e for e in events if isinstance(e, Evaluated) and isinstance(e.result.outcome, Measured)
    )
    where = console(terminal=False)
    trial = Trial(candidate=candidates[evaluation.candidate], results=(evaluation.result,))
    print_candidate(where, trial, parent_source=None)
    shown = " ".join(text_of(where).split())
    for belief in evidence(trial):
        assert f"{belief.name} {belief.text}" in shown


def test_in_a_pipe_a_source_keeps_its_lines():
    candidate = next(e.event.candidate for e in entries(3) if isinstance(e.event, Proposed))
    where = console(terminal=False, width=40)
    print_candidate(where, Trial(candidate=candidate, results=()), parent_source=None)
    assert candidate.source in text_of(where)


def test_a_candidate_whose_texts_a_report_would_let_go_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = RunConfig(name="long", task=GELU, settings=settings())
    journal = SqliteJournal.create(tmp_path / "journal.sqlite", codec.dumps(config))
    everything = [entry.event for entry in entries(200)]
    for event in everything:
        journal.append(event)
    journal.close()
    monkeypatch.setattr(fold, "__defaults__", (10,))
    slow = next(
        e.candidate
        for e in everything
        if isinstance(e, Evaluated)
        and isinstance(e.result.outcome, Measured)
        and e.result.outcome.speedup < 1
    )
    source = next(
        e.candidate.source for e in everything if isinstance(e, Proposed) and e.candidate.id == slow
    )
    shown = CliRunner().invoke(show, [str(tmp_path), slow])
    assert shown.exit_code == 0, shown.output
    assert source in shown.output
