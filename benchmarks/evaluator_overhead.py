"""What the evaluator actor adds to an evaluation, under 32 explorer coroutines and 0.2 s of service.

Both sides in one run: coroutines that call the backend themselves, and coroutines in Ray actors that call the
evaluator actor over the same backend. The overhead is the round trip less the service time.

    .venv/bin/python benchmarks/evaluator_overhead.py
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from kbopt.cluster.actors import LOOPS_PER_ACTOR, EvaluatorActor
from kbopt.cluster.ray_start import start_ray
from kbopt.core.evaluations import EvalRequest, Result, Seconds
from kbopt.core.outcomes import WrongAnswer
from kbopt.core.ports import BackendStatus
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task

SERVICE_S = 0.2
COROUTINES = 32
CALLS = 25
TASK = Task(name="t", source="")


class ParallelBackend:
    """Serves every request in `SERVICE_S`, any number at a time: what is left is overhead."""

    max_in_flight = 64
    max_batch = 8

    async def open(self) -> BackendStatus:
        return await self.status()

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        await asyncio.sleep(SERVICE_S)
        result = Result(
            outcome=WrongAnswer(reason=""),
            feedback="",
            device="d",
            protocol="p",
            boot="b",
            seconds=Seconds(),
            device_s=SERVICE_S,
        )
        return [result] * len(requests)

    async def status(self) -> BackendStatus:
        return BackendStatus(state="warm", device="d", boot="b", age_s=0.0, cold_boots=("b",))

    async def close(self) -> None:
        pass


async def round_trips(
    evaluate: Callable[[EvalRequest], Awaitable[object]], who: str, loops: int
) -> list[float]:
    """Seconds of each call by `loops` coroutines, one after the other in each."""

    async def loop(index: int) -> list[float]:
        taken = []
        for call in range(CALLS):
            request = EvalRequest(task=TASK, source=f"x = '{who}/{index}/{call}'", protocol=EvalProtocol())
            started = time.perf_counter()
            await evaluate(request)
            taken.append(time.perf_counter() - started)
        return taken

    taken = await asyncio.gather(*(loop(index) for index in range(loops)))
    return list(itertools.chain.from_iterable(taken))


@ray.remote
class Callers:
    """One actor with several coroutines, as an explorer is."""

    async def run(self, evaluator: Any, who: str) -> list[float]:
        return await round_trips(partial(evaluator.evaluate.remote, who), who, LOOPS_PER_ACTOR)


def over_ray() -> list[float]:
    start_ray(None)
    cache = Path(tempfile.mkdtemp()) / "cache.sqlite"
    evaluator = ray.remote(EvaluatorActor).options(max_concurrency=1000).remote(ParallelBackend, cache)
    ray.get(evaluator.open.remote())
    callers = [Callers.options(num_cpus=0.01).remote() for _ in range(COROUTINES // LOOPS_PER_ACTOR)]
    ray.get([caller.run.remote(evaluator, f"warm-up {index}") for index, caller in enumerate(callers)])
    taken = ray.get([caller.run.remote(evaluator, str(index)) for index, caller in enumerate(callers)])
    ray.shutdown()
    return list(itertools.chain.from_iterable(taken))


async def directly() -> list[float]:
    backend = ParallelBackend()
    return await round_trips(lambda request: backend.evaluate([request]), "direct", COROUTINES)


def main() -> None:
    sides = {"backend called directly": asyncio.run(directly()), "through the evaluator actor": over_ray()}
    print("| side | calls | median overhead, ms | 99th percentile, ms |\n| --- | --- | --- | --- |")
    medians = []
    for name, taken in sides.items():
        overhead_ms = sorted(1000 * (seconds - SERVICE_S) for seconds in taken)
        medians.append(statistics.median(taken))
        high = overhead_ms[int(0.99 * len(overhead_ms))]
        print(f"| {name} | {len(taken)} | {statistics.median(overhead_ms):.1f} | {high:.1f} |")
    print(f"\nround trip, actor over direct: {medians[1] / medians[0]:.3f}")


if __name__ == "__main__":
    main()
