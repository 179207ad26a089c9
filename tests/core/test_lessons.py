"""What a journal teaches, and which lessons a question shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbopt.core.costs import Usage
from kbopt.core.events import FINAL_REPEAT, Asked, Ended, Evaluated, Event, Proposed, Raised, Summarized
from kbopt.core.lessons import SHOWN, SHOWN_CHARS, TEXT_CHARS, Lesson, lessons_of, shown
from kbopt.core.outcomes import CompileFailed, Outcome, WrongAnswer
from kbopt.core.proposals import Candidate
from tests.support.llm_briefs import measured, trial

BLOCK = "BLOCK = {}  # tune: 32, 64, 128\n\nclass ModelNew:\n    steps = {}\n"


def told(
    number: int,
    outcome: Outcome,
    *,
    parent: int | None = None,
    note: str = "",
    source: str = "",
    strategy: str = "",
    proposer: str = "llm:m",
) -> list[Event]:
    """A brief, its answer and the verdict on it."""
    key, above = f"c{number:06d}", parent and f"c{parent:06d}"
    asked = Asked(
        brief=key, parent=above, exemplars=(), summary_version=0, seed=1, memory_version=0, strategy=strategy
    )
    text = source or BLOCK.format(64, number)
    candidate = Candidate(id=key, source=text, parent=above, proposer=proposer, memory_version=0, note=note)
    result = replace(trial().results[0], outcome=outcome, device="NVIDIA H200")
    return [asked, Proposed(candidate=candidate), Evaluated(candidate=key, result=result)]


def taught(*stories: list[Event]) -> tuple[Lesson, ...]:
    events = [event for story in stories for event in story]
    return lessons_of(
        events, task="level2/71", family="matmul", language="cuda", run="first", date="2026-11-29"
    )


def test_a_kernel_that_is_surely_faster_than_its_parent_says_what_changed_and_by_how_much() -> None:
    (found,) = taught(
        told(1, measured(2.0)),
        told(2, measured(4.0), parent=1, note="Wider loads.\n\x1b[31m", source=BLOCK.format(128, 1)),
    )
    # The ends of 3.6 to 4.4 over those of 1.8 to 2.2.
    assert (found.kind, found.gain) == ("faster", 2.0)
    assert found.interval == pytest.approx((3.6 / 2.2, 4.4 / 1.8), abs=1e-4)
    assert found.text.startswith("Wider loads")
    assert "set BLOCK 64 -> 128; 1 line new and 1 gone. It is 4x over the reference." in found.text
    assert found.text.isprintable()
    assert (found.task, found.family, found.language) == ("level2/71", "matmul", "cuda")
    assert (found.device, found.run, found.date) == ("NVIDIA H200", "first", "2026-11-29")


def test_a_note_is_told_with_its_reason() -> None:
    note = f"Wider loads, {'w' * 290} because"
    faster, mended = taught(
        told(1, measured(2.0)),
        told(2, measured(4.0), parent=1, note=note),
        told(3, CompileFailed(reason="no ;")),
        told(4, measured(1.0), parent=3, note=note),
    )
    assert faster.text.startswith(f"{note}; ")
    assert mended.text.endswith(f"Mended by: {note}.")


def test_a_gain_within_the_intervals_teaches_nothing() -> None:
    assert taught(told(1, measured(2.0)), told(2, measured(2.3), parent=1)) == ()


def test_the_surest_gains_are_kept() -> None:
    story = [told(1, measured(1.0))]
    story += [told(n, measured(float(n)), parent=1, note=f"step {n}") for n in range(2, 9)]
    assert [lesson.gain for lesson in taught(*story)] == [8.0, 7.0, 6.0]


def test_strategies_are_compared_by_their_first_kernels() -> None:
    (found,) = taught(
        told(1, measured(1.5), strategy="own-choice"),
        told(2, measured(4.0), strategy="tensor-cores"),
        told(3, measured(9.0), strategy="fusion", proposer="tunables"),  # a seed does not read the question
        told(4, WrongAnswer(reason="NaN"), strategy="split-reduction"),
    )[:1]
    assert (found.kind, found.gain, found.interval) == ("strategies", 4.0, (3.6, 4.4))
    assert found.text.endswith(": tensor-cores 4x, own-choice 1.5x, split-reduction wrong answer.")


def test_errors_are_counted_by_what_went_wrong_with_what_mended_them() -> None:
    story = [told(n, CompileFailed(reason=f"/tmp/x{n}/k.cu:{n}: expected ';'")) for n in (1, 2)]
    mended = told(3, measured(1.0), parent=1, note="Closed the statement.")
    other = told(4, WrongAnswer(reason="off by one"))
    first, second = taught(*story, mended, other)
    assert (first.kind, second.kind) == ("error", "error")
    assert first.text.startswith("2 of 4 kernels: compile failed: …/k.cu:#: expected ';'.")
    assert first.text.endswith("Mended by: Closed the statement.")
    assert second.text == "1 of 4 kernels: wrong answer: off by one."


def test_advice_is_a_models_and_cut() -> None:
    said = Summarized(text="- Tile.\n" * 400, memory_version=1, usage=(Usage(model="m"),))
    (found,) = taught([said, replace(said, text="a table", usage=())])
    assert found.kind == "advice"
    assert len(found.text) == TEXT_CHARS
    assert "\n" not in found.text


def test_the_same_journal_teaches_the_same_however_often_it_is_read() -> None:
    story = (told(1, measured(1.0)), told(2, measured(2.0), parent=1), [Ended(reason="done")])
    assert taught(*story) == taught(*story)
    other = lessons_of(
        [event for part in story for event in part], task="t", family="", language="c", run="second", date=""
    )
    assert other[0].id != taught(*story)[0].id


def test_what_was_measured_at_an_end_that_was_taken_back_counts_once() -> None:
    """A raised limit has the finalists measured at the next end again, from the cache."""
    parent, child = told(1, measured(1.0)), told(2, measured(2.0), parent=1)
    final = [replace(child[-1], result=replace(child[-1].result, outcome=measured(4.0)), repeat=FINAL_REPEAT)]
    once = taught(parent, child, final)
    assert once[0].gain == 3.0
    assert taught(parent, child, final, [Raised(evaluations=9)]) == taught(parent, child)
    assert taught(parent, child, final, [Raised(evaluations=9)], final) == once


LESSON = Lesson(text="Tile.", task="level1/1", family="matmul", language="cuda", device="NVIDIA H200")


def chosen(*lessons: Lesson) -> str:
    return shown(
        lessons, task="level2/71", family="matmul", language="cuda", device_facts="NVIDIA H200, 143771 MiB"
    )


def test_those_of_the_task_come_first_then_those_of_its_family_and_device() -> None:
    lines = chosen(
        replace(LESSON, text="general", family="", task="", device=""),
        replace(LESSON, text="other device", device="NVIDIA L4", gain=9.0),
        replace(LESSON, text="family"),
        replace(LESSON, text="task", task="level2/71"),
    ).splitlines()
    assert [line.rsplit("] ")[-1].rsplit(": ")[-1] for line in lines] == [
        "task",
        "family",
        "other device",
        "- general",
    ]
    assert lines[1] == "- [level1/1, matmul, NVIDIA H200] family"


def test_what_does_not_fit_is_left_out() -> None:
    assert chosen(replace(LESSON, language="c"), replace(LESSON, family="softmax")) == ""
    assert chosen(replace(LESSON, family="softmax", task="level2/71")) != ""


def test_each_kind_has_its_turn_and_the_larger_gain_goes_first() -> None:
    gains = [replace(LESSON, kind="faster", text=f"gain {n}", gain=1 + n / 10) for n in range(4)]
    lines = chosen(*gains, replace(LESSON, kind="error", text="error")).splitlines()
    assert [line.split("] ")[1].split(": ")[-1] for line in lines] == [
        "gain 3",
        "error",
        "gain 2",
        "gain 1",
        "gain 0",
    ]
    assert "1.3x over its parent (0 to 0): gain 3" in lines[0]


def test_a_question_shows_a_bounded_number_of_characters() -> None:
    many = [replace(LESSON, text=f"{n} {'x' * 100}") for n in range(500)]
    assert len(chosen(*many).splitlines()) == SHOWN
    long = [replace(LESSON, text=f"{n} {'x' * 5000}") for n in range(20)]
    assert 0 < len(chosen(*long)) <= SHOWN_CHARS
