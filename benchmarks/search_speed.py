"""Time of ask, tell and epsilon-net insertion with 100,000 candidates in memory.

python benchmarks/search_speed.py [--candidates 100000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kbopt.core.epsilon_net import EpsilonNet
from kbopt.core.evaluations import Result, Seconds
from kbopt.core.events import Asked, Evaluated, Event, Proposed
from kbopt.core.outcomes import Audit, Measured
from kbopt.core.proposals import Brief, Candidate
from kbopt.core.search import Search
from kbopt.core.settings import ScoreFunction, SearchSettings
from kbopt.simulated import LANDSCAPES

PROBES = 500


class NoJournal:
    """Durability is measured elsewhere."""

    def append(self, event: Event) -> None:
        pass


class Rows:
    """Sources are row numbers of a matrix of unit vectors, as wide as the local embedder's."""

    name = "rows"

    def __init__(self, count: int) -> None:
        rows = np.random.default_rng(0).standard_normal((count, 256)).astype(np.float32)
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed(self, sources: Sequence[str]) -> np.ndarray:
        return self.rows[[int(source) for source in sources]]


def result(speedup: float) -> Result:
    outcome = Measured(
        kernel_ms=(1.0 / speedup,),
        reference_ms=(1.0,),
        speedup=speedup,
        speedup_ci=(speedup * 0.99, speedup * 1.01),
        native_ms=1.0 / speedup,
        wall_ms=1.0 / speedup,
        audit=Audit(custom_kernel=True),
    )
    return Result(
        outcome=outcome, feedback="", device="", protocol="", boot="", seconds=Seconds(), device_s=0.0
    )


def history(count: int, rng: np.random.Generator) -> Iterator[Event]:
    """What a search of `count` first kernels left in its journal."""
    for number in range(count):
        brief = f"c{number + 1:06d}"
        yield Asked(brief=brief, parent=None, exemplars=(), summary_version=0, seed=number, memory_version=0)
        yield Proposed(
            candidate=Candidate(
                id=brief, source=f"x = {number}", parent=None, proposer="benchmark", memory_version=0
            )
        )
        yield Evaluated(candidate=brief, result=result(float(rng.gamma(4.0, 0.3)) + 0.01))


def milliseconds(call: Callable[[], object]) -> tuple[object, float]:
    start = time.process_time()
    value = call()
    return value, (time.process_time() - start) * 1e3


def search_row(kind: ScoreFunction, count: int) -> str:
    settings = SearchSettings(
        score_function=kind, num_steps=10 * count, memory_size=2 * count, remeasure_share=0.02
    )
    search = Search(task=LANDSCAPES["sim/smooth"].task, settings=settings, journal=NoJournal())
    rng = np.random.default_rng(1)
    search.replay(history(count, rng))
    asks, proposes, tells = [], [], []
    for number in range(count, count + PROBES):
        brief, ask_ms = milliseconds(search.ask)
        assert isinstance(brief, Brief)
        candidate = Candidate(
            id=brief.id,
            source=f"x = {number}",
            parent=brief.parent.candidate.id if brief.parent else None,
            proposer="benchmark",
            memory_version=brief.memory_version,
        )
        _, propose_ms = milliseconds(lambda candidate=candidate: search.propose(candidate))
        for ready in search.take_ready():
            answer = result(float(rng.gamma(4.0, 0.3)) + 0.01)
            _, tell_ms = milliseconds(
                lambda ready=ready, answer=answer: search.tell(
                    ready.candidate.id, answer, repeat=ready.repeat
                )
            )
            tells.append(tell_ms)
        asks.append(ask_ms)
        proposes.append(propose_ms)
    cells = [f"{np.median(ms):.3f} / {np.quantile(ms, 0.99):.3f}" for ms in (asks, proposes, tells)]
    return f"| {kind} | " + " | ".join(cells) + " |"


def net_row(count: int) -> str:
    embedder = Rows(count + PROBES)
    net = EpsilonNet(embedder, 0.02)

    def kernel(number: int) -> Candidate:
        return Candidate(
            id=f"c{number}", source=str(number), parent=None, proposer="benchmark", memory_version=0
        )

    for number in range(count):
        net.insert(kernel(number))
    net.nearest("0")
    times = []
    for number in range(count, count + PROBES):
        _, ms = milliseconds(lambda number=number: (net.nearest(str(number)), net.insert(kernel(number))))
        times.append(ms)
    return f"{np.median(times):.2f} / {np.quantile(times, 0.99):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=100_000)
    count = parser.parse_args().candidates
    print(f"{count} candidates; milliseconds of processor time, median / 99th percentile of {PROBES}\n")
    print("| score function | ask | propose | tell |\n| --- | --- | --- | --- |")
    for kind in ("mean", "ucb", "lcb"):
        print(search_row(kind, count), flush=True)
    print(f"\nepsilon-net look-up and insertion, 256 dimensions: {net_row(count)}")


if __name__ == "__main__":
    main()
