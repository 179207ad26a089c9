"""Which kernels are measured once more after a search's end, and which of them is its answer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from kbopt.core.events import FINAL_REPEAT, FULL_REPEAT, RemeasureAsked
from kbopt.core.proposals import Trial
from kbopt.core.scoring import mean_score, score

NUM_FINALISTS = 3
"""How many of the best are measured again at the end, for the winner among them."""


def finalists(leading: Iterable[Trial], answer: Trial | None) -> tuple[str, ...]:
    """The candidates with the best sources that work, and the one that was handed in as the answer.

    `leading` is best first. Equal sources are measured once, as the answer where it is one of them.
    """
    working: dict[str, str] = {}
    for trial in leading:
        if any(score(result.outcome) > 0.0 for result in trial.results):
            working.setdefault(trial.candidate.source, trial.candidate.id)
    chosen = dict(islice(working.items(), NUM_FINALISTS))
    if answer is not None:
        chosen[answer.candidate.source] = answer.candidate.id
    return tuple(chosen.values())


def final_rank(trial: Trial, answer: str) -> tuple[bool, bool, bool, float]:
    """By which a search's answer is the first of its finalists: what was handed in, else the fastest.

    Whatever failed its final measurement or its evaluation in full comes after all others.
    """
    speedup = mean_score(trial)
    return speedup > 0.0, not trial.is_refuted, trial.candidate.id == answer, speedup


def winner(finals: Iterable[Trial], answer: str) -> Trial | None:
    """The first of the finalists that work; None where none does."""
    working = [trial for trial in finals if mean_score(trial) > 0.0]
    return max(working, key=lambda trial: (*final_rank(trial, answer), trial.candidate.id), default=None)


def finals_due(
    chosen: Iterable[str], asked: Collection[str], best: Trial | None, full_asked: Collection[str]
) -> tuple[RemeasureAsked, ...]:
    """What is to be measured now: those of the `chosen` finalists that were not `asked` for yet, and once
    they are told, the `best` of them in full.
    """
    due = tuple(RemeasureAsked(candidate=key, repeat=FINAL_REPEAT) for key in chosen if key not in asked)
    if due or best is None or best.candidate.id in full_asked:
        return due
    return (RemeasureAsked(candidate=best.candidate.id, repeat=FULL_REPEAT),)
