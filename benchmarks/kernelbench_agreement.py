"""The `kernelbench` verdict beside KernelBench's protocol run plainly: same answers, same runtime?

The plain arm follows the published protocol step by step in a process of its own for each source: reference
and candidate in one namespace, inputs from the public seeds drawn on the CPU, events around each call. Honest
sources and cheats, those included that fool KernelBench: there both arms have to be fooled. Where memory lies
is decided once a process, so a runtime is the median over several processes in either arm.

    python -m benchmarks.kernelbench_agreement --device cuda
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from kbopt.core.evaluations import EvalRequest, KernelBenchVerdict
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient
from tests.adversarial.case import load_task

ADVERSARIAL = Path(__file__).parents[1] / "tests" / "adversarial"
TRIALS, TIMED = 5, 100
CPU_SAMPLES = (
    ("controls/plain_elementwise", "elementwise"),
    ("controls/rewritten_in_place", "elementwise"),
    ("controls/scratch_buffers", "elementwise"),
    ("controls/plain_matmul", "matmul"),
    ("controls/rewritten_softmax", "rowwise"),
    ("controls/plain_layers", "layers"),
    ("cheats/cache_by_id", "elementwise"),
    ("cheats/cache_by_content", "elementwise"),
    ("cheats/cache_by_shape", "elementwise"),
    ("cheats/downgrade_fp16", "matmul"),
    ("cheats/downgrade_output_dtype", "elementwise"),
    ("cheats/honest_first_calls", "elementwise"),
    ("cheats/mutate_in_place", "negate"),
    ("cheats/mutate_then_copy", "elementwise"),
    ("cheats/reuse_freed_memory", "elementwise"),
    ("cheats/seeds_of_kernelbench", "elementwise"),
    ("cheats/statistics_patched", "elementwise"),
    ("cheats/structure_broadcast", "row_means"),
    ("cheats/tamper_torch", "elementwise"),
    ("cheats/zeros_softmax", "rowwise"),
    ("hostile/no_model", "elementwise"),
)
CUDA_SAMPLES = (
    *CPU_SAMPLES,
    ("gpu/graph_replayed", "elementwise"),
    ("gpu/streams_joined", "elementwise"),
    ("gpu/stream_escape", "elementwise"),
    ("gpu/triton_elementwise", "elementwise"),
    ("gpu/tf32_backend_flag", "matmul"),
    ("gpu/triton_ieee_matmul", "matmul"),
    ("gpu/nvrtc_elementwise", "elementwise"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each source (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(options.device, Path(folder), options.repeats))


async def compare(device: str, state_dir: Path, repeats: int) -> None:
    samples = CUDA_SAMPLES if device == "cuda" else CPU_SAMPLES
    plain = {}
    for sample in samples:
        compiled, correct, *runtimes = in_new_process(device, *sample)
        for _ in range(repeats - 1 if correct else 0):
            runtimes.append(in_new_process(device, *sample)[2])
        plain[sample] = (compiled, correct, median(runtimes))
        print(*sample, compiled, correct, *runtimes, file=sys.stderr, flush=True)
    client = ServiceClient(device=device, state_dir=state_dir)
    print(await client.open())
    try:
        verdicts = await asyncio.gather(
            *(
                asyncio.gather(*(through_the_service(client, *sample, repeat) for repeat in range(repeats)))
                for sample in samples
            )
        )
    finally:
        await client.close()
    ours = {sample: in_the_middle(several) for sample, several in zip(samples, verdicts, strict=True)}
    differing, ratios = 0, []
    for (path, task), verdict in ours.items():
        compiled, correct, runtime = plain[path, task]
        same = (verdict.compiled, verdict.correctness) == (compiled, correct)
        differing += not same
        line = f"{'same' if same else 'DIFFERENT'}  {path} on {task}: compiled {verdict.compiled}, "
        line += f"correct {verdict.correctness}"
        if not same:
            line += f"; plainly {compiled}, {correct}; {dict(verdict.metadata)}"
        elif correct and verdict.runtime > 0:
            ratios.append(verdict.runtime / runtime)
            line += f", {verdict.runtime:.4g} ms, plainly {runtime:.4g} ms: {ratios[-1]:.3f}"
        print(line)
    ratios.sort()
    within = sum(0.9 <= ratio <= 1.1 for ratio in ratios)
    print(f"{len(ours) - differing} of {len(ours)} answers are the same")
    middle = ratios[len(ratios) // 2]
    print(f"runtime over the plain one: median {middle:.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f}")
    print(f"{within} of {len(ratios)} within 10 %")


def in_the_middle(verdicts: Sequence[KernelBenchVerdict]) -> KernelBenchVerdict:
    """The first one, with the median runtime of those that have one."""
    runtimes = [verdict.runtime for verdict in verdicts if verdict.runtime > 0]
    return replace(verdicts[0], runtime=median(runtimes)) if runtimes else verdicts[0]


async def through_the_service(client: ServiceClient, path: str, task: str, repeat: int) -> KernelBenchVerdict:
    request = EvalRequest(
        task=Task(name=task, source=load_task(task).source),
        source=(ADVERSARIAL / f"{path}.py").read_text(),
        protocol=EvalProtocol(trials=TRIALS, timed=TIMED),
        repeat=repeat,
    )
    verdict = (await client.evaluate(request)).kernelbench
    if verdict is None:
        raise SystemExit(f"{path} on {task}: no verdict by KernelBench's protocol came back")
    return verdict


def in_new_process(device: str, path: str, task: str) -> tuple[bool, bool, float]:
    """Compiled, correct, mean milliseconds. Forked before this process touches CUDA, torch imported."""
    import torch  # noqa: F401 - once, instead of seconds in each of the processes

    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=plainly, args=(device, path, task, theirs))
    process.start()
    theirs.close()
    try:
        answer: tuple[bool, bool, float] = ours.recv()
    except EOFError:
        answer = (True, False, math.nan)
    process.join()
    return answer


def plainly(device: str, path: str, task: str, answer: Connection) -> None:
    """The protocol, word for word."""
    import torch

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    os.chdir(tempfile.mkdtemp())
    source = (ADVERSARIAL / f"{path}.py").read_text()
    names: dict[str, Any] = {}
    exec(load_task(task).source, names)
    model_class, get_init_inputs, get_inputs = (
        names[name] for name in ("Model", "get_init_inputs", "get_inputs")
    )

    def moved(values: Any) -> list[Any]:
        return [v.to(torch.float32).to(device) if isinstance(v, torch.Tensor) else v for v in values]

    def seed(number: int) -> None:
        torch.manual_seed(number)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad():
        seed(42)
        init_inputs = moved(get_init_inputs())
        seed(42)
        reference = model_class(*init_inputs).to(device)
        try:
            Path("candidate.py").write_text(source)
            exec(compile(source, str(Path("candidate.py").absolute()), "exec"), names)
            new_class = names["ModelNew"]
        except Exception:  # noqa: BLE001 - the protocol takes any failure here for one of compilation
            answer.send((False, False, math.nan))
            return
        try:
            seed(42)
            candidate = new_class(*init_inputs).to(device)
            seed(42)
            seeds = [int(torch.randint(0, 2**32 - 1, (1,)).item()) for _ in range(TRIALS)]
            correct = True
            for number in seeds:
                seed(number)
                inputs = get_inputs()  # Lets go of the last trial's, so that the next lie there.
                inputs = moved(inputs)
                seed(number)
                expected = reference(*inputs)
                wait()
                got = candidate(*inputs)
                wait()
                correct &= expected.shape == got.shape and torch.allclose(expected, got, atol=1e-4, rtol=1e-4)
            answer.send(
                (True, correct, mean_ms(candidate, moved, get_inputs, device) if correct else math.nan)
            )
        except Exception:  # noqa: BLE001 - the protocol takes any failure here for one at run time
            answer.send((True, False, math.nan))


def mean_ms(candidate: Any, moved: Any, get_inputs: Any, device: str) -> float:
    """Three warm-ups, one discarded, a hundred timed, the L2 cleared before each."""
    import time

    import torch

    torch.manual_seed(42)
    inputs = moved(get_inputs())
    flush = torch.empty(256 * 2**20 // 8, dtype=torch.int64, device=device) if device == "cuda" else None
    times = []
    for _ in range(3):
        candidate(*inputs)
    for _ in range(TIMED + 1):
        if flush is None:
            started = time.perf_counter()
            candidate(*inputs)
            times.append(1000 * (time.perf_counter() - started))
            continue
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.fill_(42)
        start.record()
        candidate(*inputs)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sum(times[1:]) / TIMED


if __name__ == "__main__":
    main()
