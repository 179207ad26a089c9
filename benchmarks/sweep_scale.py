"""What a sweep costs at scale: two Ray nodes on this machine, simulated latencies, everything else real.

Four runs: an evaluator of 0.5 s fed by 64 explorer coroutines whose proposals take 20 s; the same with 320
searches at once; the start of 64 coroutines; 20,000 evaluations as fast as they go.

    .venv/bin/python -m benchmarks.sweep_scale [busy|many|start|bulk]...
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "MALLOC_ARENA_MAX": "1",
}  # As kbopt and its cluster file have it.

import ray
from ray.cluster_utils import Cluster

from kbopt.cluster.session import ClusterSettings, Session
from kbopt.compose.searches import factories
from kbopt.config import BackendConfig, ProposerConfig
from kbopt.core.events import Evaluated, Proposed
from kbopt.core.settings import Budget, SearchSettings
from kbopt.simulated import landscape
from kbopt.store.journal import JournalReader
from kbopt.sweep import SweepConfig, prepare

EXPLORERS = 64
SERVICE_S = 0.5
PROPOSAL_S = 20.0
TASKS = ("sim/smooth", "sim/rugged")
ALGORITHMS = ("PS", "PS_epsNet_Summarizer")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the actors: CPU seconds and resident bytes are of their processes."""

    at: float
    evaluations: int
    device_s: float
    cpu_s: float
    coordinator_bytes: int
    evaluator_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run from the moment its actors were asked for. Waits are in seconds, one list for each search.

    `first_over` is when the first search had its last result.
    """

    samples: list[Sample]
    first_evaluation_s: float
    waits: dict[str, list[float]]
    first_over: float
    last_proposal: float


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray of our own with two nodes, the evaluator's on the first."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"evaluator": 1}})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def sweep(seeds: int, evaluations: int, *, service_s: float, proposal_s: float) -> SweepConfig:
    """A sweep of `seeds * 4` searches."""
    return SweepConfig(
        name="scale",
        tasks=tuple(landscape(task).task for task in TASKS),
        algorithms=ALGORITHMS,
        seeds=tuple(range(seeds)),
        settings=SearchSettings(num_steps=evaluations, budget=Budget(evaluations=evaluations)),
        backend=BackendConfig(name="simulated", simulated_s=service_s),
        proposer=ProposerConfig(name="simulated", simulated_s=proposal_s),
        explorers=EXPLORERS,
        shares_results=False,  # else equal seeds of two algorithms halve what the evaluator has to do
    )


def measure(config: SweepConfig, address: str, parallel: int, enough: Callable[[Sample], bool]) -> Measured:
    """Run the sweep until it is over, or `enough` says so of a sample."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specs = prepare(config, folder)
        parts = factories(config.backend, config.proposer, folder)
        cluster = ClusterSettings(address=address, explorers=config.explorers, parallel_searches=parallel)
        started, began = time.monotonic(), time.time()
        with Session(config.name, specs, parts, folder / "evaluations.sqlite", cluster) as session:
            session.open_device(lambda _: None)
            coordinator, evaluator = pid_of(f"coordinator:{config.name}"), pid_of("evaluator")
            while True:
                status, told = session.status(), session.evaluator_status()
                sample = Sample(
                    at=time.monotonic() - started,
                    evaluations=told.evaluations,
                    device_s=told.device_s,
                    cpu_s=cpu_s(coordinator),
                    coordinator_bytes=rss_bytes(coordinator),
                    evaluator_bytes=rss_bytes(evaluator),
                )
                samples.append(sample)
                if status.finished or enough(sample):
                    break
                time.sleep(0.25)
            session.stop("measured", end=False)
        ray.shutdown()
        waits: dict[str, list[float]] = {}
        firsts, lasts, proposals = [], [], [began]
        for spec in specs:
            with JournalReader(spec.journal) as journal:
                entries = list(journal.entries())
            results = [(e.time, e.event.result) for e in entries if isinstance(e.event, Evaluated)]
            firsts += [when - began for when, _ in results[:1]]
            lasts += [when - began for when, _ in results[-1:]]
            proposals += [e.time for e in entries if isinstance(e.event, Proposed)]
            waits[spec.name] = [result.seconds.queue for _, result in results]
    return Measured(
        samples=samples,
        first_evaluation_s=min(firsts),
        waits=waits,
        first_over=min(lasts),
        last_proposal=max(proposals) - began,
    )


def pid_of(actor: str) -> int:
    handle = ray.get_actor(actor)
    pid: int = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy_share(run: Measured, until_s: float) -> float:
    """Between the first and the last batch's end before `until_s`: neither start nor end counts."""
    ends = [b for a, b in pairwise(run.samples) if b.device_s > a.device_s and b.at < until_s]
    return (ends[-1].device_s - ends[0].device_s) / (ends[-1].at - ends[0].at)


def cpu_share(run: Measured) -> float:
    """Of one core, the coordinator's, from the first evaluations on."""
    under_way = [sample for sample in run.samples if sample.evaluations]
    return (under_way[-1].cpu_s - under_way[0].cpu_s) / (under_way[-1].at - under_way[0].at)


def longest_wait(run: Measured) -> tuple[float, float]:
    """The longest mean wait of a search, and the mean wait of all evaluations; seconds."""
    means = [statistics.fmean(waits) for waits in run.waits.values() if waits]
    return max(means), statistics.fmean([wait for waits in run.waits.values() for wait in waits])


def busy(address: str) -> None:
    run = measure(sweep(4, 40, service_s=SERVICE_S, proposal_s=PROPOSAL_S), address, 16, lambda _: False)
    row("evaluator of 0.5 s busy, 16 searches", f"{busy_share(run, run.last_proposal):.1%}", "95 %")
    row("the same until the first search is over", f"{busy_share(run, run.first_over):.1%}", "")
    longest, mean = longest_wait(run)
    row("longest mean wait of a search / mean", f"{longest:.2f} s / {mean:.2f} s", "at most 3")


def many(address: str) -> None:
    config = sweep(80, 4, service_s=SERVICE_S, proposal_s=PROPOSAL_S)
    run = measure(config, address, 320, lambda sample: sample.at > 240)
    row("coordinator's CPU, 320 searches at once", f"{cpu_share(run):.1%} of a core", "25 %")
    row("evaluator busy, 320 searches at once", f"{busy_share(run, run.last_proposal):.1%}", "95 %")
    longest, mean = longest_wait(run)
    row("longest mean wait of a search / mean, 320", f"{longest:.2f} s / {mean:.2f} s", "at most 3")


def start(address: str) -> None:
    run = measure(sweep(2, 10, service_s=0.01, proposal_s=0.01), address, 8, lambda _: False)
    row("creation to the first evaluation", f"{run.first_evaluation_s:.1f} s", "10 s")


def bulk(address: str) -> None:
    run = measure(sweep(80, 63, service_s=0.0, proposal_s=0.0), address, 8, lambda _: False)
    last = run.samples[-1]
    tenth, half = (
        next(sample for sample in run.samples if sample.evaluations > last.evaluations * share)
        for share in (0.1, 0.5)
    )
    for actor in ("coordinator", "evaluator"):
        sizes = [f"{getattr(sample, f'{actor}_bytes') / 2**20:.0f}" for sample in (tenth, half, last)]
        what = (
            f"{actor}'s memory after {tenth.evaluations}, {half.evaluations}, {last.evaluations} evaluations"
        )
        row(what, f"{', '.join(sizes)} MiB", "flat")
    rate = (last.evaluations - tenth.evaluations) / (last.at - tenth.at)
    row("evaluations a second, nothing but overhead", f"{rate:.0f}", "")
    row("coordinator's CPU at that rate", f"{cpu_share(run):.1%} of a core", "")


PARTS = {"busy": busy, "many": many, "start": start, "bulk": bulk}


def main() -> None:
    """Prints the lines of a table: the figure, what was measured, what is wanted."""
    print("| figure | measured | wanted |\n| --- | --- | --- |", flush=True)
    with two_nodes() as address:
        for part in sys.argv[1:] or PARTS:
            PARTS[part](address)


def row(figure: str, measured: str, wanted: str) -> None:
    print(f"| {figure} | {measured} | {wanted} |", flush=True)


if __name__ == "__main__":
    main()
