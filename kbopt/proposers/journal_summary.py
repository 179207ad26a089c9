"""A summary without a language model: which seed kernels and which tunable values helped.

The text is for people and for prompts; `parse` reads it back, so that the tunables proposer can follow it
and the next summary can build on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kbopt.core.costs import Usage
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Trial
from kbopt.core.task import seed_name
from kbopt.core.tune_comments import parse as parse_tunables

OTHER = "other"
"""Stands for the seed of a kernel that comes from none, such as a language model's."""

MAX_COUNTED = 1000
"""How many candidates the text remembers to have counted; those a summary was last given stay longest."""

_HEADING = "Geometric mean of the speedup over PyTorch, by seed kernel and by tunable value:"
_COUNTED = "Counted candidates: "
_LINE = re.compile(
    r"^- (?P<seed>\S+)(?: (?P<name>\w+) = (?P<value>.+))?: "
    r"(?:(?P<mean>\S+)x over (?P<measured>\d+)|none) measured, (?P<failed>\d+) failed$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A seed kernel, or a value of one of its tunables where `name` is not empty."""

    seed: str
    name: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How candidates with one choice did: the mean of log(speedup) over `measured`, and the failures."""

    measured: int = 0
    failed: int = 0
    mean_log: float = 0.0

    def plus(self, log_speedup: float | None) -> Score:
        """With one more candidate; None is one that failed."""
        if log_speedup is None:
            return Score(measured=self.measured, failed=self.failed + 1, mean_log=self.mean_log)
        total = self.mean_log * self.measured + log_speedup
        count = self.measured + 1
        return Score(measured=count, failed=self.failed, mean_log=total / count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a summary says. `counted` are the ids of the candidates in it, the latest given last."""

    scores: Mapping[Choice, Score] = field(default_factory=dict)
    counted: tuple[str, ...] = ()


class JournalSummarizer:
    """Adds the trials that `previous` has not counted yet. Costs nothing and asks nobody."""

    async def summarize(self, trials: Sequence[Trial], previous: str) -> tuple[str, tuple[Usage, ...]]:
        return render(merge(parse(previous), trials)), ()


def merge(evidence: Evidence, trials: Iterable[Trial]) -> Evidence:
    """`evidence` with each of `trials` counted once, however often it is given."""
    scores, counted = dict(evidence.scores), dict.fromkeys(evidence.counted)
    for trial in trials:
        known = trial.candidate.id in counted
        counted.pop(trial.candidate.id, None)
        counted[trial.candidate.id] = None
        if not known:
            log_speedup = _log_speedup(trial)
            for choice in choices_of(trial.candidate.source):
                scores[choice] = scores.get(choice, Score()).plus(log_speedup)
    return Evidence(scores=scores, counted=tuple(counted)[-MAX_COUNTED:])


def choices_of(source: str) -> tuple[Choice, ...]:
    """The seed that `source` comes from, and the values that its tunables have."""
    seed = seed_name(source) or OTHER
    values = (Choice(seed=seed, name=item.name, value=item.value) for item in parse_tunables(source))
    return (Choice(seed=seed), *values)


def render(evidence: Evidence) -> str:
    """The text of a summary, best seeds and values first; empty without evidence."""
    if not evidence.scores:
        return ""
    seeds = sorted({choice.seed for choice in evidence.scores}, key=lambda s: _rank(evidence, Choice(seed=s)))
    lines = [_HEADING]
    for seed in seeds:
        choices = [choice for choice in evidence.scores if choice.seed == seed]
        choices.sort(key=lambda c: (c.name, _rank(evidence, c)))
        lines += [_line(choice, evidence.scores[choice]) for choice in choices]
    return "\n".join([*lines, _COUNTED + " ".join(evidence.counted)])


def parse(text: str) -> Evidence:
    """What `render` wrote into `text`; no evidence in a text of another origin."""
    scores = {}
    for found in _LINE.finditer(text):
        choice = Choice(seed=found["seed"], name=found["name"] or "", value=found["value"] or "")
        mean_log = math.log(float(found["mean"])) if found["mean"] else 0.0
        scores[choice] = Score(
            measured=int(found["measured"] or 0), failed=int(found["failed"]), mean_log=mean_log
        )
    counted = [line.removeprefix(_COUNTED) for line in text.splitlines() if line.startswith(_COUNTED)]
    return Evidence(scores=scores, counted=tuple(counted[-1].split()) if scores and counted else ())


def _line(choice: Choice, score: Score) -> str:
    what = f"{choice.seed} {choice.name} = {choice.value}" if choice.name else choice.seed
    mean = f"{math.exp(score.mean_log):.6g}x over {score.measured}" if score.measured else "none"
    return f"- {what}: {mean} measured, {score.failed} failed"


def _rank(evidence: Evidence, choice: Choice) -> tuple[bool, float, str]:
    score = evidence.scores.get(choice, Score())
    return (not score.measured, -score.mean_log, choice.value or choice.seed)


def _log_speedup(trial: Trial) -> float | None:
    """The mean of log(speedup) over the trial's measurements; None where one of them failed."""
    speedups = [result.outcome.speedup for result in trial.results if isinstance(result.outcome, Measured)]
    if len(speedups) < len(trial.results) or not speedups:
        return None
    return sum(map(math.log, speedups)) / len(speedups)
