"""`--spend headroom` beside `evenly` on simulated sweeps: equal evaluations, the geometric mean of answers.

    python benchmarks/search_spend.py [--seeds 24] [--first-seed 100] [--evaluations 20 40 80]

Each search is simulated once for each seed, further than any sweep lets it go: a search of n evaluations is
the beginning of a longer one. Both ways to spend read the same searches, and share out what the sweep has by
the functions that the coordinator calls. "Ends" is the ratio to the same rule where no search is over before
all is used; "ended early" is the share of searches that were, "with left" the mean share of the sweep's
evaluations that was still left then. What this leaves out: a search waits until nothing of it is in
flight before it gets another portion, and then proposes from newer results.

The floor of a task is its landscape's optimum, which a search can reach. "Wrong" floors are up to 20 times
out of reach, each task's own; with "none" nobody knows one.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from search_held_out import HELD_OUT

from kbopt.core.events import Evaluated
from kbopt.core.scoring import mean_interval, score
from kbopt.core.settings import Budget, SearchSettings
from kbopt.core.spending import (
    Account,
    Shared,
    expected_gain,
    first_part,
    next_portion,
    outbid,
    steady_gain,
)
from kbopt.simulated import LANDSCAPES, Landscape, Latency, simulate
from kbopt.simulated.landscapes import OPTIMUM_SPEEDUP

LATENCY = Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0)
FURTHEST = 4
"""Times its even share that a search may get: how far it is simulated."""
WORST_FLOOR = 20.0

Floors = Literal["known", "wrong", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One search after every evaluation: the answer's true speedup, and the best mean it measured."""

    true: tuple[float, ...]
    measured: tuple[float, ...]


def course(landscape: Landscape, seed: int, evaluations: int) -> Course:
    settings = SearchSettings(num_steps=evaluations, seed=seed, budget=Budget(evaluations=evaluations))
    report = simulate(settings, landscape, explorers=4, proposal_latency=LATENCY, evaluation_s=5.0)
    scores: dict[str, list[float]] = {}
    measured = []
    for event in report.events:
        if isinstance(event, Evaluated) and not (event.is_final or event.cached):
            scores.setdefault(event.candidate, []).append(score(event.result.outcome))
            measured.append(max(sum(values) / len(values) for values in scores.values()))
    return Course(true=report.quality[:evaluations], measured=tuple(measured[:evaluations]))


def shared_out(
    courses: Sequence[Course], each: int, *, floors: Floors, seed: int, ends: bool
) -> tuple[list[int], list[float]]:
    """How many evaluations each search had, and with `ends` what share of the sweep's was left when one ended
    because more was expected of the others. Searches that have some left proceed in step.
    """
    rng = random.Random(seed)
    factors = [math.exp(rng.uniform(0.0, math.log(WORST_FLOOR))) for _ in courses]
    limits, used = [first_part(each)] * len(courses), [0] * len(courses)
    shared, ended = Shared(evaluations=each * len(courses)), dict[int, float]()
    while True:
        for index, limit in enumerate(limits):
            used[index] += used[index] < limit
        while True:
            accounts = []
            for index, one in enumerate(courses):
                so_far = one.measured[: used[index]]
                share = 0.0
                if floors != "none" and so_far[-1] > 0:
                    reach = OPTIMUM_SPEEDUP * (factors[index] if floors == "wrong" else 1.0)
                    share = min(1.0, so_far[-1] / reach)
                is_over = index in ended or used[index] == len(one.true)
                state = "over" if is_over else "going" if used[index] < limits[index] else "waiting"
                gain, steady = expected_gain(so_far, share), steady_gain(share)
                accounts.append(Account(state=state, evaluations=limits[index], gain=gain, steady=steady))
            portion = next_portion(accounts, shared)
            if portion is None:
                break
            index = portion.index
            limits[index] = min(limits[index] + portion.evaluations, len(courses[index].true))
        for index in outbid(accounts, shared) if ends else ():
            ended[index] = 1.0 - sum(used) / (each * len(courses))
        if used == limits:
            return used, list(ended.values())


def log_mean(courses: Sequence[Course], used: Sequence[int]) -> float:
    return float(
        np.mean([math.log(max(one.true[n - 1], 1e-3)) for one, n in zip(courses, used, strict=True)])
    )


def compare(name: str, landscapes: Mapping[str, Landscape], seeds: range, budgets: Sequence[int]) -> None:
    for each in budgets:
        found = {
            seed: [course(landscape, seed, FURTHEST * each) for landscape in landscapes.values()]
            for seed in seeds
        }
        evenly = {seed: log_mean(courses, [each] * len(courses)) for seed, courses in found.items()}
        cells, changes, most, early, left = [], [], [], [], []
        for floors in ("known", "wrong", "none"):
            gains = []
            for seed, courses in found.items():
                used, ended = shared_out(courses, each, floors=floors, seed=seed, ends=True)
                waits, _ = shared_out(courses, each, floors=floors, seed=seed, ends=False)
                gains.append(log_mean(courses, used) - evenly[seed])
                changes.append(log_mean(courses, used) - log_mean(courses, waits))
                most.append(max(used) / each)
                early.append(len(ended) / len(courses))
                left += ended
            cells.append(ratio(gains))
        cells.append(ratio(changes))
        even = math.exp(np.mean(list(evenly.values())))
        facts = f"{name} | {len(landscapes)} | {each} | {even:.2f}"
        figures = f"{np.mean(early):.0%} | {np.mean(left or [0.0]):.0%} | {np.mean(most):.1f}"
        print(f"| {facts} | {' | '.join(cells)} | {figures} |", flush=True)


def ratio(logs: Sequence[float]) -> str:
    low, high = mean_interval(logs)
    return f"{math.exp(np.mean(logs)):.3f} [{math.exp(low):.3f}, {math.exp(high):.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[20, 40, 80], metavar="N")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    shipped = dict(LANDSCAPES)
    LANDSCAPES.update(HELD_OUT)  # where the simulated device looks a task up
    print("Ratio of geometric means, headroom over evenly, 95 % bootstrap interval over seeds.\n")
    print(
        "| tasks | how many | evaluations each | evenly | floors known | wrong | none | ends "
        "| ended early | with left | most to one, x |"
    )
    print("| --- " * 11 + "|")
    compare("shipped", shipped, seeds, options.evaluations)
    compare("held out", HELD_OUT, seeds, options.evaluations)
    compare("all", {**shipped, **HELD_OUT}, seeds, options.evaluations)


if __name__ == "__main__":
    main()
