"""What the persistent Modal container costs and saves: forty explorers over the loopback control plane.

    python -m benchmarks.modal_overhead [--evaluations 400] [--explorers 40] [--start-delay-s 30]

Three runs of the same evaluations, all with an unmodified SDK and real container processes, the first two
through the evaluation queue as a run has it:

- warm: one container that is up already, the backend's way;
- cold: the same with a container that takes `--start-delay-s` to be scheduled;
- old way: a new container for each evaluation, one after another, sampled and scaled up.

The evaluations are of a source that does not parse, the shortest verdict there is, so that the time added
by the backend is not hidden behind compiling and timing. Added time is what a call through Modal takes
beyond the same call to an evaluation service next to it, in turns, one at a time; a call of the SDK that does
nothing, in the same turns, is the part of it that any use of Modal has.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import modal
import numpy as np
from numpy.typing import NDArray

from kbopt.backends.modal_client import ModalBackend, app_name, ensure_deployed, stop
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.core.evaluations import EvalRequest
from kbopt.evaluation.client import ServiceClient
from kbopt.store.cache import EvaluationCache
from tests.support.modal_plane import ModalPlane
from tests.support.quick_task import SYNTAX_ERROR, request

Call = Callable[[int], Awaitable[object]]
NUM_SAMPLES = 200


def numbered(run: str, number: int) -> EvalRequest:
    return request(f"{SYNTAX_ERROR}# {run} {number}\n")


async def in_turns(calls: Sequence[Call]) -> NDArray[np.float64]:
    """Milliseconds of `NUM_SAMPLES` single calls of each, one after the other: shape (samples, calls)."""
    rows = []
    for number in range(NUM_SAMPLES):
        row = []
        for call in calls:
            started = time.perf_counter()
            await call(number)
            row.append((time.perf_counter() - started) * 1e3)
        rows.append(row)
    return np.array(rows)


async def explore(queue: EvaluationQueue, run: str, num_explorers: int, num_evaluations: int) -> float:
    """Seconds until `num_explorers` have got `num_evaluations` results, opening included."""
    numbers = iter(range(num_evaluations))

    async def explorer(name: str) -> None:
        for number in numbers:
            await queue.evaluate(name, numbered(run, number))

    started = time.perf_counter()
    await queue.open()
    await asyncio.gather(*(explorer(f"search {number % 8}") for number in range(num_explorers)))
    return time.perf_counter() - started


async def shut_down(gpu: str, plane: ModalPlane) -> None:
    await asyncio.to_thread(stop, gpu)
    while plane.counters()["alive"]:
        await asyncio.sleep(0.05)


async def measure(plane: ModalPlane, options: argparse.Namespace, stack: ExitStack) -> None:
    explorers, evaluations = options.explorers, options.evaluations
    plane.set(start_delay_s=options.start_delay_s)
    backend = ModalBackend("L4")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    queue = EvaluationQueue(backend, EvaluationCache(folder / "cache.sqlite"))
    before = plane.counters()["cold_starts"]
    cold_s = await explore(queue, "cold", explorers, evaluations)
    cold_starts = plane.counters()["cold_starts"] - before
    reported = (await backend.status()).cold_starts
    plane.set(start_delay_s=0.0)
    warm_s = await explore(queue, "warm", explorers, evaluations)
    service = ServiceClient(device="cpu", state_dir=folder)
    await service.open()
    bare = modal.Cls.from_name(app_name(), "Evaluator").with_options(gpu="L4")().describe

    async def call_sdk(_: int) -> None:
        await (await bare.spawn.aio({"owner": "bare"})).get.aio()

    times_ms = await in_turns(
        [
            lambda number: service.evaluate(numbered("direct", number)),
            lambda number: backend.evaluate([numbered("through", number)]),
            call_sdk,
        ]
    )
    await service.close()
    direct_ms, through_ms, sdk_ms = np.median(times_ms, axis=0)
    added_ms = np.median(times_ms[:, 1] - times_ms[:, 0])
    beyond_sdk_ms = np.median(times_ms[:, 1] - times_ms[:, 0] - times_ms[:, 2])
    peak = plane.counters()["peak_containers"]
    total_cold_starts = plane.counters()["cold_starts"] - before
    await queue.close()
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
    print(f"| a call of the bare SDK that does nothing, median ms | {sdk_ms:.1f} |")
    print(f"| added beyond such a call, median ms | {beyond_sdk_ms:.1f} |")
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
    with ExitStack() as stack:
        plane = stack.enter_context(ModalPlane())
        locks = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ |= {**plane.env, "KBOPT_CACHE": locks}
        ensure_deployed()
        asyncio.run(measure(plane, options, stack))


if __name__ == "__main__":
    main()
