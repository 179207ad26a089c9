"""Candidates a minute through kbopt's service, against a fresh process with torch's build for each.

Both arms in one invocation, for a machine with a GPU, nvcc and Triton; about eight minutes on 16 cores.

- `kbopt`: all sixteen `load_inline` candidates handed to one service at once, then the Triton and NVRTC ones,
  then 32 variants of one Triton kernel as a search tries them, then the first sixteen again with new
  measurements (no compilation), then a cached source, then crashes.
- `one by one`: a fresh process for each candidate, with torch's own build inside. `--samples` candidates are
  measured; their mean times sixteen stands for the batch, and is printed as an extrapolation.
- `parallel build`: torch's builds all at once, then a fresh process for each candidate, again a few of those
  measured and the rest extrapolated.

Last, the machine code of all kernels as built by both arms is compared.

    python -m benchmarks.evaluator_throughput --arch 9.0
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.lean_headers import CANDIDATES, TASKS, build_all, compare_machine_code, in_new_process
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import outcome_name
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

NUM_CRASHES = 5
CRASH = """
import os

import torch


class ModelNew(torch.nn.Module):
    def forward(self, *inputs):
        os.abort()
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", required=True, help="the device's compute capability, such as 9.0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2, help="candidates measured one by one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        asyncio.run(compare(arguments, Path(work)))


async def compare(arguments: argparse.Namespace, work: Path) -> None:
    inlines = sorted(CANDIDATES.glob("inline_*.py"))
    ours_s = await through_the_service(inlines, arguments, work / "service")
    started = time.monotonic()
    await build_all(inlines, "torch", work / "torch", arguments.jobs, None, arguments.arch)
    parallel_s = time.monotonic() - started
    samples = inlines[: arguments.samples]
    again_s = [await fresh_process(file, work / "torch", arguments.arch) for file in samples]
    compare_kernels(inlines, work)
    alone_s = [await fresh_process(file, work / "alone", arguments.arch) for file in samples]
    one_by_one_s = statistics.mean(alone_s) * len(inlines)
    after_parallel_s = parallel_s + statistics.mean(again_s) * len(inlines)
    print(f"one by one, {len(samples)} measured: {alone_s} s each, {one_by_one_s:.0f} s by extrapolation")
    print(
        f"parallel build {parallel_s:.0f} s, then {again_s} s each: {after_parallel_s:.0f} s by extrapolation"
    )
    print(
        f"throughput: {one_by_one_s / ours_s:.1f} times one by one, "
        f"{after_parallel_s / ours_s:.1f} times parallel"
    )


def compare_kernels(inlines: list[Path], work: Path) -> None:
    """Whether both arms built the same machine code, by the names of their libraries."""
    for file in inlines:
        (theirs,) = (work / "torch" / file.stem).rglob("*.so")
        ours = next((work / "service" / "builds" / "entries").rglob(theirs.name), None)
        found = compare_machine_code(ours.parent, theirs.parent, work / "cubins") if ours else "not found"
        print(f"machine code of {file.stem}: {found}", flush=True)


async def through_the_service(inlines: list[Path], arguments: argparse.Namespace, state_dir: Path) -> float:
    """Seconds from handing the batch over to its last answer; prints everything else on the way."""
    client = ServiceClient(device=arguments.device, state_dir=state_dir)
    await client.open()
    try:
        started = time.monotonic()
        batch = await evaluate_all(client, inlines)
        batch_s = time.monotonic() - started
        report("load_inline, fresh", batch, batch_s)
        for prefix in ("triton", "nvrtc"):
            started = time.monotonic()
            others = await evaluate_all(client, sorted(CANDIDATES.glob(f"{prefix}_*.py")))
            report(f"{prefix}, fresh", others, time.monotonic() - started)
        started = time.monotonic()
        variants = triton_variants(CANDIDATES / "triton_02_diagonal.py")
        results = await asyncio.gather(*(client.evaluate(one) for one in variants.values()))
        report(
            "variants of one Triton kernel, fresh",
            dict(zip(variants, results, strict=True)),
            time.monotonic() - started,
        )
        started = time.monotonic()
        report(
            "load_inline, built", await evaluate_all(client, inlines, repeat=1), time.monotonic() - started
        )
        await report_cached(client, inlines[0])
        await report_crash(client)
    finally:
        await client.close()
    return batch_s


def triton_variants(file: Path) -> dict[str, EvalRequest]:
    """The same kernel at other block sizes, warps and stages, which each have to be compiled."""
    source, variants = file.read_text(), {}
    for block, warps, stages in itertools.product((512, 1024, 2048, 4096), (1, 2, 4, 8), (2, 3)):
        options = f"BLOCK={block}, num_warps={warps}, num_stages={stages}"
        changed = source.replace("BLOCK=1024", options).replace("1024", str(block))
        variants[f"block {block}, {warps} warps, {stages} stages"] = request(file, source=changed)
    return variants


async def report_cached(client: ServiceClient, file: Path) -> None:
    """What asking for the build of a source costs that was built before."""
    built = await client.evaluate(request(file, repeat=2))
    print(f"a build found in the store: {1000 * built.seconds.compile:.1f} ms")


async def report_crash(client: ServiceClient) -> None:
    """What a child that aborts costs the evaluation after it: medians of pairs, with a short kernel."""
    file = CANDIDATES / "inline_02_diagonal.py"
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * NUM_CRASHES):
        crash_first = number % 2 == 1
        if crash_first:
            crashed = await client.evaluate(request(file, repeat=number, source=CRASH))
            print(f"crash: {outcome_name(crashed.outcome)}", flush=True)
        started = time.monotonic()
        await client.evaluate(request(file, repeat=10 + number))
        seconds[crash_first].append(time.monotonic() - started)
    after, without = statistics.median(seconds[True]), statistics.median(seconds[False])
    print(
        f"after a crash {after:.2f} s, without {without:.2f} s, {after - without:+.2f} s: medians of "
        f"{[round(s, 2) for s in seconds[True]]} and {[round(s, 2) for s in seconds[False]]}"
    )


async def evaluate_all(client: ServiceClient, files: list[Path], *, repeat: int = 0) -> dict[str, Result]:
    results = await asyncio.gather(*(client.evaluate(request(file, repeat=repeat)) for file in files))
    return {file.stem: result for file, result in zip(files, results, strict=True)}


def request(file: Path, *, repeat: int = 0, source: str = "") -> EvalRequest:
    task = sorted(TASKS.glob("*.py"))[int(file.stem.split("_")[1])]
    return EvalRequest(
        task=Task(name=f"matmul/{file.stem.split('_')[1]}", source=task.read_text(), family="matmul"),
        source=source or file.read_text(),
        protocol=EvalProtocol(trials=5, timed=100),
        repeat=repeat,
    )


def report(title: str, results: dict[str, Result], wall_s: float) -> None:
    lease_s = [result.seconds.check + result.seconds.time for result in results.values()]
    busy = sum(result.device_s for result in results.values()) / max(sum(lease_s), 1e-9)
    print(
        f"{title}: {len(results)} in {wall_s:.1f} s ({60 * len(results) / wall_s:.0f} a minute), "
        f"check and timing {statistics.median(lease_s):.2f} s median, GPU busy {busy:.0%} of that",
        flush=True,
    )
    for name, result in results.items():
        spent = result.seconds
        print(
            f"  {name}: {outcome_name(result.outcome)}, queue {spent.queue:.1f}, "
            f"compile {spent.compile:.1f}, "
            f"check {spent.check:.2f}, time {spent.time:.2f} s",
            flush=True,
        )


async def fresh_process(file: Path, directory: Path, arch: str) -> float:
    """Wall clock of a new process that builds `file` with torch (or finds its build) and checks it once."""
    task = sorted(TASKS.glob("*.py"))[int(file.stem.split("_")[1])]
    started = time.monotonic()
    answer = await in_new_process("fresh", file, "", directory / file.stem, f"{arch}:{task}")
    if not answer["ok"]:
        raise RuntimeError(f"{file.stem} failed in a fresh process: {answer['note']}")
    return time.monotonic() - started


if __name__ == "__main__":
    main()
