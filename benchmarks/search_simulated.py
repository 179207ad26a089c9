"""The asynchronous search beside the original's steps and the baselines, on simulated landscapes.

    python benchmarks/search_simulated.py [--seeds 20]

Virtual time: a proposal takes 30 +- 20 s (at least 1 s), an evaluation 5 s. Intervals are 95 % bootstrap
intervals of the mean over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from kbopt.core.scoring import mean_interval
from kbopt.core.settings import Algorithm, Budget, SearchSettings
from kbopt.simulated import LANDSCAPES, Landscape, Latency, SimulationReport, simulate

LATENCY = Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0)
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
) -> SimulationReport:
    settings = SearchSettings(
        algorithm=algorithm,
        synchronous=synchronous,
        seed=seed,
        num_steps=num_steps,
        budget=Budget(evaluations=evaluations),
    )
    return simulate(
        settings, landscape, explorers=explorers, proposal_latency=LATENCY, evaluation_s=EVALUATION_S
    )


def interval(values: Sequence[float], digits: int = 2) -> str:
    low, high = mean_interval(values)
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def busy_and_cost(seeds: range) -> None:
    print("### Evaluator and cost, twelve explorers, five candidates\n")
    print("| landscape | mode | evaluator busy | evaluations per proposal | staleness, median |")
    print("| --- | --- | --- | --- | --- |")
    for name, landscape in LANDSCAPES.items():
        for synchronous in (False, True):
            reports = [
                run(landscape, seed, explorers=12, synchronous=synchronous, num_steps=NUM_STEPS)
                for seed in seeds
            ]
            print(
                f"| {name} | {'synchronous' if synchronous else 'asynchronous'}"
                f" | {interval([r.busy_share for r in reports], 3)}"
                f" | {interval([r.evaluations_per_proposal for r in reports], 3)}"
                f" | {np.mean([r.progress.staleness_median for r in reports]):.1f} |",
                flush=True,
            )


def evaluations_to_match(seeds: range) -> None:
    print(f"\n### Evaluations to the original's final quality ({NUM_STEPS} steps of five candidates)\n")
    print("A search that never got there within the original's evaluations counts as twice as many.\n")
    print("| landscape | explorers | original: evaluations, quality | asynchronous: share needed | never |")
    print("| --- | --- | --- | --- | --- |")
    for name, landscape in LANDSCAPES.items():
        for explorers in (1, 5, 12):
            shares, finals, counts, never = [], [], [], 0
            for seed in seeds:
                original = run(landscape, seed, explorers=explorers, synchronous=True, num_steps=NUM_STEPS)
                count = len(original.quality)
                ours = run(landscape, seed, explorers=explorers, evaluations=count)
                reached = next((n for n, q in enumerate(ours.quality, 1) if q >= original.final), None)
                never += reached is None
                shares.append((reached or 2 * count) / count)
                finals.append(original.final)
                counts.append(count)
            print(
                f"| {name} | {explorers} | {np.mean(counts):.0f}, {interval(finals)}"
                f" | {interval(shares)} | {never} of {len(seeds)} |",
                flush=True,
            )


def against_baselines(seeds: range) -> None:
    print(f"\n### True speedup of the answer after {NUM_EVALUATIONS} evaluations, twelve explorers\n")
    names: tuple[Algorithm, ...] = ("PS", "PS_epsNet", "best_of_n", "random")
    print("| landscape | " + " | ".join(names) + " | PS synchronous |")
    print("| --- |" + " --- |" * (len(names) + 1))
    for name, landscape in LANDSCAPES.items():
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    busy_and_cost(seeds)
    evaluations_to_match(seeds)
    against_baselines(seeds)


if __name__ == "__main__":
    main()
