"""What one search teaches the next: lessons from a journal, and which of many to show. Pure, without a model.

A lesson says what was seen, with its interval, and quotes what models and compilers wrote: text that nobody
checked, on one line and cut, to be read as data.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kbopt.core.events import Asked, Attempted, Evaluated, Event, Proposed, Raised, Summarized
from kbopt.core.failures import error_text
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.proposals import MAX_NOTE_CHARS, Candidate, Trial
from kbopt.core.scoring import mean_score, score_interval
from kbopt.core.text import encodable, one_line, plural
from kbopt.core.tune_comments import parse

LessonKind = Literal["faster", "strategies", "error", "advice"]

MOST_FASTER = 3
MOST_ERRORS = 3
"""Lessons of a kind from one search: the surest gains and the most frequent errors. A library that grows by
a page a search is not read."""
TEXT_CHARS = 1_200
"""Of one lesson's text; a model's advice is the longest."""
SHOWN_CHARS = 3_000
"""Of all lessons in a question, beside a kernel and its profile."""
SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One thing that a search taught. `text` is all that an entry written by hand needs.

    `gain` is a ratio of two speedups with the 95 % interval `interval` beside it: of a kernel over its parent
    (`faster`), of the best first kernel over the reference (`strategies`); 0 where nothing was measured.
    `date` is in ISO form. `id` is equal for what the same run taught, however often it is asked.
    """

    text: str
    kind: LessonKind = "advice"
    task: str = ""
    family: str = ""
    language: str = ""
    device: str = ""
    gain: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    date: str = ""
    run: str = ""
    id: str = ""


@dataclass(slots=True)
class _Story:
    """A journal's candidates with all of their measurements, and what first briefs asked for."""

    candidates: dict[str, Candidate] = field(default_factory=dict)
    results: dict[str, list[Evaluated]] = field(default_factory=lambda: defaultdict(list))
    strategies: dict[str, str] = field(default_factory=dict)
    advice: str = ""

    def add(self, event: Event) -> None:
        match event:
            case Asked(parent=None) if event.strategy:
                self.strategies[event.brief] = event.strategy
            case Proposed() | Attempted():
                self.candidates[event.candidate.id] = event.candidate
            case Evaluated(is_full=False):
                self.results[event.candidate].append(event)
            case Raised():  # what was measured at the former end is measured at the next one, from the cache
                for key, told in self.results.items():
                    self.results[key] = [one for one in told if not one.is_final]
            case Summarized() if event.usage:  # a model's: what is counted without one is a table
                self.advice = event.text

    def trials(self) -> dict[str, Trial]:
        return {
            key: Trial(candidate=self.candidates[key], results=tuple(one.result for one in told))
            for key, told in self.results.items()
        }


def lessons_of(
    events: Iterable[Event], *, task: str, family: str, language: str, run: str, date: str
) -> tuple[Lesson, ...]:
    """What the journal of the search `run` teaches: at most eight lessons.

    `faster`: a kernel whose ratio to its parent lies above 1 with confidence. The largest of many ratios are
    too large, as every choice of the best is; the intervals do not know of it.
    """
    story = _Story()
    for event in events:
        story.add(event)
    trials = story.trials()
    device = next((trial.results[-1].device for trial in trials.values()), "")

    def lesson(
        kind: LessonKind, key: str, text: str, gain: float = 0.0, low: float = 0.0, high: float = 0.0
    ) -> Lesson:
        return Lesson(
            kind=kind,
            text=_bounded(text, TEXT_CHARS),
            task=task,
            family=family,
            language=language,
            device=device,
            gain=round(gain, 4),
            interval=(round(low, 4), round(high, 4)),
            date=date,
            run=run,
            id=hashlib.sha256(f"{run}/{kind}/{key}".encode("utf-8", "replace")).hexdigest()[:12],
        )

    found = [
        lesson("faster", child.candidate.source, _what_changed(child, parent), *ratio)
        for ratio, child, parent in _gains(trials)[:MOST_FASTER]
    ]
    first = [
        (strategy, trials[brief])
        for brief, strategy in story.strategies.items()
        if brief in trials and trials[brief].candidate.proposer.startswith(("llm:", "agent:"))
    ]
    if len({strategy for strategy, _ in first}) > 1:
        best = max((trial for _, trial in first), key=mean_score)
        found.append(lesson("strategies", "", _by_strategy(first), mean_score(best), *score_interval(best)))
    found += [lesson("error", key, text) for key, text in _errors(trials)[:MOST_ERRORS]]
    if story.advice.strip():
        found.append(lesson("advice", "", story.advice))
    return tuple(found)


def shown(lessons: Iterable[Lesson], *, task: str, family: str, language: str, device_facts: str) -> str:
    """Those that fit best, one a line, at most `SHOWN` of them and `SHOWN_CHARS` characters.

    Lessons of the same task come before those of its family, and of either those of the same device; of
    lessons that fit equally well the best of each kind before the second of any, by gain and date. What is
    of another language, or of another family and task, is left out.
    """
    chosen = [
        lesson
        for lesson in lessons
        if lesson.language in ("", language) and (lesson.task == task or lesson.family in ("", family))
    ]

    def fit(lesson: Lesson) -> tuple[bool, bool, bool]:
        is_same_device = bool(lesson.device) and lesson.device in device_facts
        return lesson.task == task, bool(family) and lesson.family == family, is_same_device

    place: Counter[tuple[tuple[bool, bool, bool], LessonKind]] = Counter()
    placed: list[tuple[tuple[bool, bool, bool], int, Lesson]] = []
    for lesson in sorted(chosen, key=lambda one: (one.gain, one.date), reverse=True):
        placed.append((fit(lesson), -place[fit(lesson), lesson.kind], lesson))
        place[fit(lesson), lesson.kind] += 1
    placed.sort(key=lambda one: one[:2], reverse=True)
    lines: list[str] = []
    left = SHOWN_CHARS
    for line in dict.fromkeys(_line(lesson) for _, _, lesson in placed):
        if len(line) < left and len(lines) < SHOWN:
            lines.append(line)
            left -= len(line) + 1
    return "\n".join(lines)


def _line(lesson: Lesson) -> str:
    facts = ", ".join(filter(None, (lesson.task, lesson.family, lesson.device, lesson.date)))
    over = {"faster": " over its parent", "strategies": " over the reference"}.get(lesson.kind, "")
    low, high = lesson.interval
    gain = f"{lesson.gain:.3g}x{over} ({low:.3g} to {high:.3g}): " if lesson.gain else ""
    text = _bounded(lesson.text, TEXT_CHARS)
    return f"- [{facts}] {gain}{text}" if facts else f"- {gain}{text}"


Ratio = tuple[float, float, float]


def _gains(trials: Mapping[str, Trial]) -> list[tuple[Ratio, Trial, Trial]]:
    """Children that are surely faster than their parents, the surest gain first, each source once."""
    found: dict[str, tuple[Ratio, Trial, Trial]] = {}
    for child in trials.values():
        parent = trials.get(child.candidate.parent or "")
        if parent is None or not (_works(child) and _works(parent)):
            continue
        (low, high), (floor, ceiling) = score_interval(child), score_interval(parent)
        if floor > 0 and low / ceiling > 1.0:
            ratio = (mean_score(child) / mean_score(parent), low / ceiling, high / floor)
            found.setdefault(child.candidate.source, (ratio, child, parent))
    return sorted(found.values(), key=lambda gain: gain[0][1], reverse=True)


def _what_changed(child: Trial, parent: Trial) -> str:
    """The author's note, the tunables that differ, and how much of the text does."""
    before, after = parent.candidate.source, child.candidate.source
    old = {tunable.name: tunable.value for tunable in parse(before)}
    tuned = [
        f"{tunable.name} {old[tunable.name]} -> {tunable.value}"
        for tunable in parse(after)
        if old.get(tunable.name, tunable.value) != tunable.value
    ]
    lines = [line[:1] for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    parts = [one_line(child.candidate.note)[:MAX_NOTE_CHARS].rstrip(". ")]
    parts += [f"set {', '.join(tuned)}"] if tuned else []
    parts.append(f"{plural(lines.count('+'), 'line')} new and {lines.count('-')} gone")
    return f"{'; '.join(filter(None, parts))}. It is {mean_score(child):.3g}x over the reference."


def _by_strategy(first: Sequence[tuple[str, Trial]]) -> str:
    ranked = sorted(first, key=lambda one: mean_score(one[1]), reverse=True)
    told = [f"{strategy} {_came_of(trial)}" for strategy, trial in ranked]
    return f"First kernels by the strategy that was asked for: {', '.join(told)}."


def _came_of(trial: Trial) -> str:
    outcome = trial.results[-1].outcome
    return f"{mean_score(trial):.3g}x" if _works(trial) else outcome_name(outcome).replace("_", " ")


def _errors(trials: Mapping[str, Trial]) -> list[tuple[str, str]]:
    """The most frequent errors, each with what mended it where a child of such a kernel works."""
    failed: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials.values():
        outcome = trial.results[0].outcome
        if not isinstance(outcome, Measured):
            failed[outcome_name(outcome), error_text(outcome)].append(trial)
    found = []
    for (name, text), group in sorted(failed.items(), key=lambda one: len(one[1]), reverse=True):
        ids = {trial.candidate.id for trial in group}
        mended = [t.candidate.note for t in trials.values() if t.candidate.parent in ids and _works(t)]
        note = next((one_line(note)[:MAX_NOTE_CHARS] for note in mended if note.strip()), "")
        how = f" Mended by: {note.rstrip('. ')}." if note else ""
        count = f"{len(group)} of {len(trials)} kernels: {name.replace('_', ' ')}"
        found.append((f"{name}: {text}", f"{count}: {text.rstrip('. ')}.{how}"))
    return found


def _works(trial: Trial) -> bool:
    return all(isinstance(result.outcome, Measured) for result in trial.results) and mean_score(trial) > 0.0


def _bounded(text: str, limit: int) -> str:
    """On one line, without control characters, at most `limit` characters."""
    line = one_line(encodable(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"
