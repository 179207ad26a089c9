"""KernelBench's own protocol, field by field, for comparison with published numbers.

It can be fooled, unlike the strict verdict: seeds are public, and the candidate runs in the reference's
process and globals and times itself. Its verdict is reported beside the strict one and never ranks.

Source: KernelBench's `eval_kernel_against_ref` and its timing module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev, variance
from typing import Any

import torch

from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.evaluation import numerics
from kbopt.evaluation.kernelbench.loading import first_inputs, load_task_module, parsed
from kbopt.evaluation.messages import CallBoth
from kbopt.evaluation.numerics import DTYPES, synchronize

_SEED = 42
_WARM_UPS = 3
_DISCARDED = 1
"""Seed, warm-up calls and discarded first calls: KernelBench's own values."""
_FEWEST_TIMED = 20
_ENOUGH_MS = 300.0
_SETTLED = 0.01
"""A timing ends after `_FEWEST_TIMED` calls and `_ENOUGH_MS` once the mean's relative standard error is this
small. This is kbopt's rule and not KernelBench's; see `is_settled`."""
_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
_FLUSH_BYTES = 256 * 2**20
"""Absolute and relative tolerance, and the bytes written to flush the L2: KernelBench's own values."""
_TASK_FAILS = (
    "the reference fails by KernelBench's protocol, which casts every input to the task's precision: "
)


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded task: its globals, and its functions as they were before the candidate ran."""

    context: dict[str, Any]
    model: Callable[..., Any]
    get_init_inputs: Callable[[], Sequence[Any]]
    get_inputs: Callable[[], Sequence[Any]]

    def draw(self, seed: int, precision: str, device: torch.device) -> list[Any]:
        torch.manual_seed(seed)
        with device:
            drawn = self.get_inputs()
        return _cast_all(drawn, precision, device)


def load_task(source: str) -> Task:
    """Load a task and bind its functions before the candidate runs in the same globals, as KernelBench does.

    KernelBench knows no workloads, so the first one is used.
    """
    module = load_task_module(source)
    context = vars(module)
    return Task(context, context["Model"], context["get_init_inputs"], first_inputs(module, source))


def input_seeds(trials: int) -> list[int]:
    """Return the seeds of the trials, followed by the seed of the timing."""
    torch.manual_seed(_SEED)
    return [*(int(torch.randint(0, 2**32 - 1, (1,)).item()) for _ in range(trials)), _SEED]


def judge(job: CallBoth, await_device: Callable[[], None]) -> KernelBenchVerdict:
    """Judge the candidate by KernelBench's protocol, and time the reference.

    `await_device` is called once, when the reference is constructed. Afterwards the reference is timed, and
    then the candidate's code is loaded, checked and timed by the same rules. So seconds lie between both
    times and not the turns of others: models of many kernels took up to twice as long in one turn as in
    another. KernelBench draws inputs on the CPU. Here they are drawn on the device, with the same
    distribution: on the CPU seven sets of several GiB take a minute and the host's memory.
    """
    protocol, device, precision = job.protocol, torch.device(job.device), job.protocol.precision
    numerics.apply(protocol.arithmetic)
    torch.set_num_threads(job.threads)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    metadata: dict[str, Any] = {"hardware": hardware, "device": str(device)}
    task = load_task(job.task_source)
    seeds = input_seeds(protocol.trials)
    try:
        model, init_inputs = _constructed(task, precision, device)
    except Exception as error:  # noqa: BLE001 - it casts integer inputs to float, which many tasks refuse
        return _failed(error, metadata, "runtime_error", _TASK_FAILS)
    await_device()
    try:
        reference = _place(model, precision, device)
        inputs = task.draw(seeds[-1], precision, device)
        ref_stats = statistics(_times(reference, inputs, protocol.timed, device))
        inputs.clear()
    except Exception as error:  # noqa: BLE001 - as above
        return _failed(error, metadata, "runtime_error", _TASK_FAILS)
    try:
        _execute_as_file(job.source, task.context)
        new_class = task.context["ModelNew"]
    except Exception as error:  # noqa: BLE001 - KernelBench takes any failure here for a compilation error
        return _failed(error, metadata, "compilation_error")
    try:
        with torch.no_grad():
            torch.manual_seed(_SEED)
            candidate = _place(new_class(*init_inputs), precision, device)
            synchronize(device)
            trials = _Trials(task, seeds, precision, device)
            if not trials.check(reference, candidate, metadata):
                return KernelBenchVerdict(compiled=True, correctness=False, metadata=metadata)
            inputs = task.draw(seeds[-1], precision, device)
            stats = statistics(_times(candidate, inputs, protocol.timed, device))
    except Exception as error:  # noqa: BLE001 - KernelBench takes any failure here for a runtime error
        return _failed(error, metadata, "runtime_error")
    return KernelBenchVerdict(
        compiled=True,
        correctness=True,
        metadata=metadata,
        runtime=stats["mean"],
        runtime_stats=stats,
        ref_runtime=ref_stats["mean"],
        ref_runtime_stats=ref_stats,
    )


def _failed(error: Exception, metadata: dict[str, Any], key: str, prefix: str = "") -> KernelBenchVerdict:
    metadata |= {key: prefix + str(error)[:2000], f"{key}_name": _qualified(error)}
    return KernelBenchVerdict(compiled=key != "compilation_error", correctness=False, metadata=metadata)


def _cast_all(values: Sequence[Any], precision: str, device: torch.device) -> list[Any]:
    return [_cast(value, precision, device) for value in values]


def statistics(times_ms: list[float]) -> dict[str, float]:
    """Return mean, std, min and max of the times with three significant digits, and their number."""
    figures = {"mean": fmean(times_ms), "std": pstdev(times_ms), "min": min(times_ms), "max": max(times_ms)}
    return {**{name: float(f"{value:.3g}") for name, value in figures.items()}, "num_trials": len(times_ms)}


@dataclass(frozen=True, slots=True)
class _Trials:
    """KernelBench's checks of correctness."""

    task: Task
    seeds: Sequence[int]
    precision: str
    device: torch.device

    def check(self, reference: Any, candidate: Any, metadata: dict[str, Any]) -> bool:
        tolerance = _TOLERANCE[self.precision]
        passed, trials = 0, len(self.seeds) - 1
        arguments: list[Any] = []
        for seed in self.seeds[:-1]:
            # KernelBench frees a trial's inputs first, so the next ones may get the same addresses.
            arguments.clear()
            arguments = self.task.draw(seed, self.precision, self.device)
            torch.manual_seed(seed)
            synchronize(self.device)
            expected = reference(*arguments)
            synchronize(self.device)
            got = candidate(*arguments)
            synchronize(self.device)
            if expected.shape != got.shape:
                metadata["correctness_issue"] = (
                    f"Output shape mismatch: Expected {expected.shape}, got {got.shape}"
                )
                return False
            if torch.allclose(expected, got, atol=tolerance, rtol=tolerance):
                passed += 1
            else:
                difference = (expected - got).abs()
                metadata.setdefault("max_difference", []).append(f"{difference.max().item():.6f}")
                metadata.setdefault("avg_difference", []).append(f"{difference.mean().item():.6f}")
                metadata["correctness_issue"] = "Output mismatch"
            del expected, got
        metadata["correctness_trials"] = f"({passed} / {trials})"
        return passed == trials


def _times(model: Any, inputs: Sequence[Any], timed: int, device: torch.device) -> list[float]:
    measure: Callable[..., float] = _event_ms if device.type == "cuda" else _host_ms
    flush = (
        torch.empty(_FLUSH_BYTES // 8, dtype=torch.int64, device=device) if device.type == "cuda" else None
    )
    with torch.no_grad():
        for _ in range(_WARM_UPS):
            model(*inputs)
            synchronize(device)
        for _ in range(_DISCARDED):
            measure(model, inputs, flush, device)
        times: list[float] = []
        while len(times) < timed and not is_settled(times):
            times.append(measure(model, inputs, flush, device))
    return times


def is_settled(times_ms: list[float]) -> bool:
    """Return whether a slow kernel has been timed for long enough: the mean's standard error is at most 1 %.

    KernelBench itself always makes all calls. Beyond 0.3 s further calls only hold the device and hardly
    change the mean.
    """
    if len(times_ms) < _FEWEST_TIMED or sum(times_ms) < _ENOUGH_MS:
        return False
    return math.sqrt(variance(times_ms) / len(times_ms)) <= _SETTLED * fmean(times_ms)


def _event_ms(model: Any, inputs: Sequence[Any], flush: torch.Tensor, device: torch.device) -> float:
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.fill_(42)
    start.record()
    model(*inputs)
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))


def _host_ms(model: Any, inputs: Sequence[Any], _flush: None, _device: torch.device) -> float:
    started = time.perf_counter()
    model(*inputs)
    return 1000 * (time.perf_counter() - started)


def _constructed(task: Task, precision: str, device: torch.device) -> tuple[Any, list[Any]]:
    """Return the reference, still on the CPU, and the arguments of its construction."""
    torch.manual_seed(_SEED)
    init_inputs = _cast_all(task.get_init_inputs(), precision, device)
    torch.manual_seed(_SEED)
    with torch.no_grad():
        return task.model(*init_inputs), init_inputs


def _execute_as_file(source: str, context: dict[str, Any]) -> None:
    path = Path.cwd() / "candidate.py"
    code = parsed(source, str(path))
    path.write_text(source)
    context["__file__"] = str(path)
    exec(code, context)


def _place(model: Any, precision: str, device: torch.device) -> Any:
    return model.to(device=device, dtype=DTYPES[precision])  # type: ignore[index]


def _cast(value: Any, precision: str, device: torch.device) -> Any:
    """Cast a tensor to the precision. KernelBench casts integers too."""
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=DTYPES[precision])  # type: ignore[index]
    return value


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
