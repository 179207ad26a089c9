"""What the persistent Modal container costs and saves: forty explorers over the loopback control plane.

    python -m benchmarks.modal_overhead [--evaluations 400] [--explorers 40] [--start-delay-s 30]

Three runs of the same evaluations, all with an unmodified SDK and real container processes:

- warm: one container that is up already, the backend's way;
- cold: the same with a container that takes `--start-delay-s` to be scheduled;
- old way: a new container for each evaluation, one after another, sampled and scaled up.

The evaluations are of a source that does not parse, the shortest verdict there is, so that the time added
by the backend is not hidden behind compiling and timing. Added time is what a call through Modal takes
beyond the same call to an evaluation service next to it, in turns, one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kbopt.backends.modal_client import ModalBackend, ensure_deployed, stop
from kbopt.core.types import EvalRequest
from kbopt.evaluation.client import ServiceClient
from tests.support.modal_plane import ModalPlane
from tests.support.quick_task import SYNTAX_ERROR, request

Evaluate = Callable[[EvalRequest], Awaitable[object]]
NUM_SAMPLES = 200


def numbered(run: str, number: int) -> EvalRequest:
    return request(f"{SYNTAX_ERROR}# {run} {number}\n")


async def alternately(first: Evaluate, second: Evaluate) -> tuple[float, float, float]:
    """Median milliseconds of single calls of either, in turns, and the median of their differences."""
    pairs = []
    for number in range(NUM_SAMPLES):
        times_ms = []
        for run, evaluate in (("first", first), ("second", second)):
            started = time.perf_counter()
            await evaluate(numbered(run, number))
            times_ms.append((time.perf_counter() - started) * 1e3)
        pairs.append(times_ms)
    first_ms, second_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    return first_ms, second_ms, statistics.median(after - before for before, after in pairs)


async def explore(backend: ModalBackend, run: str, num_explorers: int, num_evaluations: int) -> float:
    """Seconds until `num_explorers` have got `num_evaluations` results, opening included.

    The explorers share the backend's places for batches as the evaluator does.
    """
    places = asyncio.Semaphore(backend.max_in_flight)
    numbers = iter(range(num_evaluations))

    async def explorer() -> None:
        for number in numbers:
            async with places:
                await backend.evaluate([numbered(run, number)])

    started = time.perf_counter()
    await backend.open()
    await asyncio.gather(*(explorer() for _ in range(num_explorers)))
    return time.perf_counter() - started


async def shut_down(gpu: str, plane: ModalPlane) -> None:
    await asyncio.to_thread(stop, gpu)
    while plane.counters()["alive"]:
        await asyncio.sleep(0.05)


async def measure(plane: ModalPlane, options: argparse.Namespace) -> None:
    explorers, evaluations = options.explorers, options.evaluations
    plane.set(start_delay_s=options.start_delay_s)
    backend = ModalBackend("L4")
    before = plane.counters()["cold_starts"]
    cold_s = await explore(backend, "cold", explorers, evaluations)
    cold_starts = plane.counters()["cold_starts"] - before
    reported = (await backend.status()).cold_starts
    plane.set(start_delay_s=0.0)
    warm_s = await explore(backend, "warm", explorers, evaluations)
    with tempfile.TemporaryDirectory() as folder:
        service = ServiceClient(device="cpu", state_dir=Path(folder))
        await service.open()
        direct_ms, through_ms, added_ms = await alternately(service.evaluate, lambda r: backend.evaluate([r]))
        await service.close()
    peak = plane.counters()["peak_containers"]
    total_cold_starts = plane.counters()["cold_starts"] - before
    await backend.close()
    await shut_down("L4", plane)

    old_samples_s = []
    for number in range(options.old_way_samples):
        old = ModalBackend("L4")
        started = time.perf_counter()
        await old.open()
        await old.evaluate([numbered("old", number)])
        old_samples_s.append(time.perf_counter() - started)
        await old.close()
        await shut_down("L4", plane)
    old_s = statistics.median(old_samples_s)

    print(f"| evaluations, explorers | {evaluations}, {explorers} |")
    print(f"| cold starts by the plane, by the backend | {total_cold_starts}, {reported} |")
    print(f"| peak of containers | {peak} |")
    print(f"| one call to the service alone, median ms | {direct_ms:.1f} |")
    print(f"| the same through the backend, median ms | {through_ms:.1f} |")
    print(f"| added by the backend, median ms | {added_ms:.1f} |")
    print(f"| warm run, s | {warm_s:.2f} |")
    print(f"| cold run with a start delay of {options.start_delay_s:g} s, s | {cold_s:.2f} |")
    print(f"| cold run over warm run, s | {cold_s - warm_s:.2f} |")
    print(f"| old way, one evaluation, no start delay, median of {len(old_samples_s)}, s | {old_s:.2f} |")
    print(f"| old way, all {evaluations}, scaled up, s | {old_s * evaluations:.0f} |")
    print(f"| old way over warm run | {old_s * evaluations / warm_s:.0f} x |")
    assert cold_starts == reported == total_cold_starts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--explorers", type=int, default=40)
    parser.add_argument("--start-delay-s", type=float, default=30.0)
    parser.add_argument("--old-way-samples", type=int, default=5)
    options = parser.parse_args()
    with ModalPlane() as plane, tempfile.TemporaryDirectory() as locks:
        os.environ |= {**plane.env, "KBOPT_CACHE": locks}
        ensure_deployed()
        asyncio.run(measure(plane, options))


if __name__ == "__main__":
    main()
