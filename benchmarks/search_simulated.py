"""The asynchronous search beside the original's steps and the baselines, on simulated landscapes.

    python benchmarks/search_simulated.py [--seeds 20] [--first-seed 0] [--held-out]

Virtual time: a proposal takes 30 +- 20 s (at least 1 s), an evaluation 5 s. Intervals are 95 % bootstrap
intervals of the mean over seeds. `--held-out` takes landscapes that do not ship.

The original evaluates its answer once more in every step, only to report it. `--synchronous` leaves that out,
since it changes no choice; here it is counted as the original counts it, and both counts are given.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from search_held_out import HELD_OUT

from kbopt.core.pacing import InFlightLimit
from kbopt.core.scoring import mean_interval
from kbopt.core.settings import Algorithm, Budget, SearchSettings
from kbopt.simulated import LANDSCAPES, Landscape, Latency, SimulationReport, simulate

LATENCY = Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0)
SLOW = Latency(mean_s=120.0, deviation_s=80.0, smallest_s=1.0)
EVALUATION_S = 5.0
NUM_STEPS = 20
NUM_EVALUATIONS = 100


def run(
    landscape: Landscape,
    seed: int,
    *,
    explorers: int,
    algorithm: Algorithm = "PS",
    synchronous: bool = False,
    num_steps: int = 1000,
    evaluations: int | None = None,
    pacing: InFlightLimit | None = None,
    latency: Latency = LATENCY,
) -> SimulationReport:
    settings = SearchSettings(
        algorithm=algorithm,
        synchronous=synchronous,
        seed=seed,
        num_steps=num_steps,
        budget=Budget(evaluations=evaluations),
    )
    return simulate(
        settings,
        landscape,
        explorers=explorers,
        proposal_latency=latency,
        evaluation_s=EVALUATION_S,
        pacing=pacing,
    )


def interval(values: Sequence[float], digits: int = 2) -> str:
    low, high = mean_interval(values)
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def busy_and_cost(landscapes: Mapping[str, Landscape], seeds: range) -> None:
    print("### Evaluator and cost, twelve explorers, five candidates\n")
    print("| landscape | mode | evaluator busy | evaluations per proposal | staleness, median |")
    print("| --- | --- | --- | --- | --- |")
    for name, landscape in landscapes.items():
        for synchronous in (False, True):
            reports = [
                run(landscape, seed, explorers=12, synchronous=synchronous, num_steps=NUM_STEPS)
                for seed in seeds
            ]
            answers = NUM_STEPS if synchronous else 0
            costs = [(r.progress.evaluations + answers) / r.progress.proposals for r in reports]
            print(
                f"| {name} | {'as the original' if synchronous else 'asynchronous'}"
                f" | {interval([r.busy_share for r in reports], 3)} | {interval(costs, 3)}"
                f" | {np.mean([r.progress.staleness_median for r in reports]):.1f} |",
                flush=True,
            )


class FixedLimit(InFlightLimit):
    """What a limit that learns nothing does."""

    def observe(self, *, in_flight: int, waiting: int, dry: bool) -> None:
        pass


def searches_to_match(
    landscape: Landscape,
    seeds: range,
    explorers: int,
    limit: int | None = None,
    latency: Latency = LATENCY,
) -> Iterator[tuple[SimulationReport, SimulationReport, float]]:
    """(the original's steps, the asynchronous search, evaluations it took to the original's final quality).

    One that never got there within the original's evaluations counts as twice as many.
    """
    for seed in seeds:
        original = run(landscape, seed, explorers=explorers, synchronous=True, num_steps=NUM_STEPS)
        count = len(original.quality) + NUM_STEPS
        pacing = FixedLimit(start=limit) if limit else None
        ours = run(landscape, seed, explorers=explorers, evaluations=count, pacing=pacing, latency=latency)
        reached = next((n for n, q in enumerate(ours.quality, 1) if q >= original.final), 2 * count)
        yield original, ours, reached


def evaluations_to_match(landscapes: Mapping[str, Landscape], seeds: range) -> None:
    print(f"\n### Evaluations to the original's final quality ({NUM_STEPS} steps of five candidates)\n")
    print("A search that never got there within the original's evaluations counts as twice as many.\n")
    print(
        "| landscape | explorers | original: evaluations, quality | asynchronous: share needed"
        " | without the answers' | never |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, landscape in landscapes.items():
        for explorers in (1, 5, 12):
            rows = list(searches_to_match(landscape, seeds, explorers))
            counts = [len(original.quality) + NUM_STEPS for original, _, _ in rows]
            reached = [reached for _, _, reached in rows]
            never = sum(r > c for r, c in zip(reached, counts, strict=True))
            print(
                f"| {name} | {explorers}"
                f" | {np.mean(counts):.0f}, {interval([original.final for original, _, _ in rows])}"
                f" | {interval([r / c for r, c in zip(reached, counts, strict=True)])}"
                f" | {interval([r / (c - NUM_STEPS) for r, c in zip(reached, counts, strict=True)])}"
                f" | {never} of {len(seeds)} |",
                flush=True,
            )


def limits(
    landscapes: Mapping[str, Landscape],
    seeds: range,
    explorers: int,
    latency: Latency,
    values: Sequence[int],
) -> None:
    print(f"\n### The limit on work in flight, {explorers} explorers, {latency.mean_s:g} s a proposal\n")
    print("Evaluator busy over the whole search; the share of evaluations needed, as above.\n")
    print("| limit | busy | staleness | " + " | ".join(landscapes) + " |")
    print("| --- | --- | --- |" + " --- |" * len(landscapes))
    for limit in (*values, None):
        busy, stale, cells = [], [], []
        for landscape in landscapes.values():
            rows = list(searches_to_match(landscape, seeds, explorers, limit, latency))
            busy += [ours.busy_share for _, ours, _ in rows]
            stale += [ours.progress.staleness_median for _, ours, _ in rows]
            cells.append(interval([r / (len(original.quality) + NUM_STEPS) for original, _, r in rows]))
        print(
            f"| {limit or 'learned'} | {np.mean(busy):.2f} | {np.mean(stale):.1f} | {' | '.join(cells)} |",
            flush=True,
        )


def against_baselines(landscapes: Mapping[str, Landscape], seeds: range) -> None:
    print(f"\n### True speedup of the answer after {NUM_EVALUATIONS} evaluations, twelve explorers\n")
    names: tuple[Algorithm, ...] = ("PS", "PS_epsNet", "best_of_n", "random")
    print("| landscape | " + " | ".join(names) + " | PS synchronous |")
    print("| --- |" + " --- |" * (len(names) + 1))
    for name, landscape in landscapes.items():
        rows = [(algorithm, False) for algorithm in names] + [("PS", True)]
        cells = []
        for algorithm, synchronous in rows:
            finals = [
                run(
                    landscape,
                    seed,
                    explorers=12,
                    algorithm=algorithm,
                    synchronous=synchronous,
                    evaluations=NUM_EVALUATIONS,
                ).final
                for seed in seeds
            ]
            cells.append(interval(finals))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    landscapes = dict(LANDSCAPES)
    if options.held_out:
        landscapes = HELD_OUT
        LANDSCAPES.update(HELD_OUT)  # where the simulated device looks a task up
    busy_and_cost(landscapes, seeds)
    evaluations_to_match(landscapes, seeds)
    limits(landscapes, seeds, 12, LATENCY, (5, 6, 7, 8, 9, 10, 12, 16))
    limits(landscapes, seeds, 64, SLOW, (8, 16, 24, 32, 64))
    against_baselines(landscapes, seeds)


if __name__ == "__main__":
    main()
