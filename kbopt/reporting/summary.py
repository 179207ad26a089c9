"""The figures of one run as plain data: what `--json` prints, tables show and the page draws."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields

from kbopt.core.costs import Rent
from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.events import Dropped
from kbopt.core.outcomes import OUTCOME_NAMES, Measured, Roofline, Speedup, WorkloadTimes
from kbopt.core.raising import changes, in_force, raised
from kbopt.core.scoring import Standing, standing
from kbopt.core.tally import amount
from kbopt.reporting.evidence import (
    equal_code_of,
    faster_text,
    final_fault,
    roofline_of,
    speedups_of,
    strongest,
    verdict_of,
    workloads_of,
    workloads_text,
)
from kbopt.reporting.history import History, fold
from kbopt.reporting.records import Message, ModelSpend, Node, ProgressPoint, Recommendation
from kbopt.reporting.run import Run
from kbopt.reporting.text import plural, ranked_over

LISTED = 200
"""How many rejections, failures and errors a summary lists; the totals count them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestKernel(Standing):
    """The trial with the highest mean speedup over its measurements, the final ones where they were made, and
    where it was measured. Of a session it is the one that was submitted, and `faster` names in a sentence
    what measured faster at the end.

    `ranked_over` names what its speedup is over. `speedups` are those over every baseline that was asked for,
    `strongest` the smallest of them beside that one; `kernelbench` is KernelBench's own verdict and
    `equal_code` what the task's own model was measured at over itself. `workloads` are those of a task that
    names some, and `by_workload` says it in a line. At the end they come from the winner's full evaluation;
    `final_fault` says what that found wrong. `roofline` is the floor of a call and the kernel's share of it.
    """

    device: str
    protocol: str
    ranked_over: str = "eager PyTorch"
    speedups: tuple[Speedup, ...] = ()
    strongest: Speedup | None = None
    kernelbench: KernelBenchVerdict | None = None
    equal_code: Speedup | None = None
    workloads: tuple[WorkloadTimes, ...] = ()
    by_workload: str = ""
    final_fault: str = ""
    faster: str = ""
    roofline: Roofline | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunableValue:
    """How the sources that took this value did; speedups are None where none of them was correct.

    Sources are counted once, however often they were proposed.
    """

    value: str
    sources: int
    correct: int
    median_speedup: float | None
    best_speedup: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A tunable of the kernels that grew from `seed`: another seed's of the same name is another one.

    `worth` is the median speedup with the best value over that with the worst, 1.0 for no difference. It
    compares whole sources, so other differences between them are in it as well. None unless two values
    have correct sources.
    """

    seed: str
    name: str
    worth: float | None
    values: tuple[TunableValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    """Numbers and paths in `text` are replaced, so that the same error counts as the same."""

    outcome: str
    text: str
    count: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """How many results the search saw between a candidate's brief and its own result."""

    mean: float
    median: float
    maximum: int
    histogram: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """Limits that the user raised: at which Unix time, after how much of the search's own, and how."""

    time: float
    minutes: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run in figures. `seconds` leaves out the time between sessions.

    `setup` names by what the run was made: its algorithm, proposer, protocol, device and budget.
    `by_outcome` and `errors` count candidates by their first result, also one from the cache; `evaluations`
    counts repeats too, and no cache hit.
    `lease_fraction` is the share of the time in which a candidate held the device, `busy_fraction` the share
    in which the device ran one or the reference. `usd` is for `models` and `containers` together. `ended` is
    None for a run that goes on or was cut off.
    """

    run: str
    task: str
    algorithm: str
    seed: int
    setup: Mapping[str, str]
    devices: tuple[str, ...]
    started: float
    seconds: float
    sessions: int
    ended: str | None
    raised: tuple[Raise, ...]
    evaluations: int
    cached: int
    repeats: int
    proposals: int
    proposals_failed: int
    candidates: int
    correct: int
    by_outcome: Mapping[str, int]
    best: BestKernel | None
    progress: tuple[ProgressPoint, ...]
    busy_fraction: float
    lease_fraction: float
    stage_seconds: Mapping[str, float]
    cold_starts: int
    cold_boots: tuple[str, ...]
    usd: float
    tokens: int
    models: tuple[ModelSpend, ...]
    containers: tuple[Rent, ...]
    staleness: Staleness | None
    tunables: tuple[Tunable, ...]
    errors: tuple[ErrorCount, ...]
    num_dropped: int
    dropped: tuple[Dropped, ...]
    recommendations: tuple[Recommendation, ...]
    num_failures: int
    failures: tuple[Message, ...]


def summarize(run: Run) -> RunSummary:
    """The figures of `run`; reads its entries once."""
    return summarize_history(run, fold(run.entries))


def summarize_history(run: Run, history: History) -> RunSummary:
    """The figures of a fold of `run`'s entries so far; `run.entries` itself is not read."""
    seconds = history.minutes * 60
    nodes = history.nodes.values()
    devices = dict.fromkeys(started.device for started in history.backends)
    cold_boots = tuple(started.boot for started in history.backends if started.cold)
    return RunSummary(
        run=run.name,
        task=run.task.name,
        algorithm=run.settings.algorithm,
        seed=run.settings.seed,
        setup=_setup(run, history, tuple(devices)),
        devices=tuple(devices),
        started=history.started,
        seconds=seconds,
        sessions=history.sessions,
        ended=history.ended,
        raised=_raised(run, history),
        evaluations=history.evaluations,
        cached=history.cached,
        repeats=history.repeats,
        proposals=history.proposals,
        proposals_failed=history.proposals_failed,
        candidates=len(nodes),
        correct=sum(node.speedup is not None for node in nodes),
        by_outcome={name: history.by_outcome[name] for name in OUTCOME_NAMES.values()},
        best=_best(history),
        progress=tuple(history.progress),
        busy_fraction=history.busy_fraction,
        lease_fraction=min(1.0, history.lease_s / seconds) if seconds else 0.0,
        stage_seconds=dict(history.stage_s),
        cold_starts=len(cold_boots),
        cold_boots=cold_boots,
        usd=history.usd,
        tokens=history.tokens,
        models=tuple(sorted(history.spend.values(), key=lambda spend: -spend.usd)),
        containers=tuple(history.rents.values()),
        staleness=_staleness(history),
        tunables=_tunables(history),
        errors=_errors(history),
        num_dropped=len(history.dropped),
        dropped=tuple(history.dropped[-LISTED:]),
        recommendations=tuple(history.recommendations[-LISTED:]),
        num_failures=history.num_failures,
        failures=tuple(history.failures)[-LISTED:],
    )


def _raised(run: Run, history: History) -> tuple[Raise, ...]:
    settings, found = run.settings, []
    for one in history.raises:
        found.append(Raise(time=one.time, minutes=one.minutes, text=changes(settings, one.limits)))
        settings = raised(settings, one.limits)
    return tuple(found)


def _setup(run: Run, history: History, devices: tuple[str, ...]) -> dict[str, str]:
    settings = in_force(run.settings, (one.limits for one in history.raises))
    budget = settings.budget
    algorithm = settings.algorithm + (", step by step" if settings.synchronous else "")
    limits = [
        plural(settings.num_total_proposals, "proposal"),
        plural(budget.evaluations, "evaluation") if budget.evaluations else "",
        f"${amount(budget.usd)}" if budget.usd else "",
        plural(budget.tokens, "token") if budget.tokens else "",
        f"{budget.minutes:g} min" if budget.minutes else "",
        "a part of the sweep's" if budget.grows else "",
        *(f"raised from {one.text}" for one in _raised(run, history)),
    ]
    found = {"algorithm": algorithm, **run.setup, "device": ", ".join(devices)}
    return {**found, "budget": ", ".join(filter(None, limits))}


def _best(history: History) -> BestKernel | None:
    node = history.best
    if node is None:
        return None
    found = standing(node.trial)
    if found is None:
        return None
    last = [result for result in node.judged if isinstance(result.outcome, Measured)][-1]
    figures = {field.name: getattr(found, field.name) for field in fields(found)}
    speedups = speedups_of(node.trial)
    return BestKernel(
        **figures,
        device=last.device,
        protocol=last.protocol,
        ranked_over=ranked_over(last),
        speedups=speedups,
        strongest=strongest(speedups, last.protocol),
        kernelbench=verdict_of(node.trial),
        equal_code=equal_code_of(node.trial),
        workloads=workloads_of(node.trial),
        by_workload=workloads_text(node.trial),
        final_fault=final_fault(node.trial),
        faster=faster_text(node.trial, (one.trial for one in history.finalists)),
        roofline=roofline_of(node.trial),
    )


def _staleness(history: History) -> Staleness | None:
    seen = [node.staleness for node in history.nodes.values() if node.staleness is not None]
    if not seen:
        return None
    counts = Counter(seen)
    return Staleness(
        mean=statistics.fmean(seen),
        median=statistics.median(seen),
        maximum=max(seen),
        histogram={str(value): counts[value] for value in sorted(counts)},
    )


def _tunables(history: History) -> tuple[Tunable, ...]:
    takers: dict[tuple[str, str], dict[str, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for node in history.nodes.values():
        for name, value in node.tunables:
            if node.results:
                takers[node.seed, name][value].append(node)
    found = []
    for (seed, name), by_value in takers.items():
        values = tuple(
            _tunable_value(value, nodes) for value, nodes in sorted(by_value.items(), key=_numeric)
        )
        medians = [value.median_speedup for value in values if value.median_speedup]
        worth = max(medians) / min(medians) if len(medians) > 1 else None
        found.append(Tunable(seed=seed, name=name, worth=worth, values=values))
    best_seed = history.best.seed if history.best else ""
    return tuple(sorted(found, key=lambda one: (one.seed != best_seed, one.seed, -(one.worth or 0.0))))


def _numeric(item: tuple[str, object]) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return 0, float(item[0]), item[0]
    except ValueError:
        return 1, 0.0, item[0]


def _tunable_value(value: str, nodes: list[Node]) -> TunableValue:
    by_source: dict[int, list[float]] = defaultdict(list)
    for node in nodes:
        by_source[node.source_key] += [] if node.speedup is None else [node.speedup]
    speedups = [statistics.fmean(measured) for measured in by_source.values() if measured]
    return TunableValue(
        value=value,
        sources=len(by_source),
        correct=len(speedups),
        median_speedup=statistics.median(speedups) if speedups else None,
        best_speedup=max(speedups, default=None),
    )


def _errors(history: History) -> tuple[ErrorCount, ...]:
    return tuple(
        ErrorCount(outcome=outcome, text=text, count=count, example=history.error_examples[outcome, text])
        for (outcome, text), count in history.errors.most_common(LISTED)
    )
