"""KernelBench's own protocol, field for field, for comparison with published numbers.

It trusts what `strict` does not: seeds are public, the candidate runs in the reference's process and
globals, and times itself. Its answer is reported beside the strict one and never ranks.

Source of the protocol: KernelBench's `eval_kernel_against_ref` and its timing module.
"""

from __future__ import annotations

import math
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kbopt.evaluation.reference import DTYPES

_SEED = 42
_WARM_UPS = 3
_DISCARDED = 1
_FEWEST_TIMED = 20
_ENOUGH_MS = 300.0
_SETTLED = 0.01
_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
_FLUSH_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Task:
    """A task's source, executed: its globals, and its functions as they were bound then."""

    context: dict[str, Any]
    model: Callable[..., Any]
    get_init_inputs: Callable[[], Sequence[Any]]
    get_inputs: Callable[[], Sequence[Any]]


def load_task(source: str) -> Task:
    """KernelBench binds the functions before the candidate runs in the same globals."""
    context: dict[str, Any] = {}
    exec(compile(source, "<task>", "exec"), context)
    return Task(context, context["Model"], context["get_init_inputs"], context["get_inputs"])


def input_seeds(trials: int) -> list[int]:
    """The seed of each trial, and last that of the timing."""
    torch.manual_seed(_SEED)
    return [*(int(torch.randint(0, 2**32 - 1, (1,)).item()) for _ in range(trials)), _SEED]


def draw_inputs(task: Task, seed: int, precision: str, device: torch.device) -> list[Any]:
    """What get_inputs() returns under `seed`, cast and moved as KernelBench does."""
    torch.manual_seed(seed)
    return [_cast(value, precision, device) for value in task.get_inputs()]


class _Inputs:
    """Inputs by number of their seed: taken from the referee while they are what would be drawn here.

    A candidate that rebinds a global which get_inputs() reads, or patches torch, changes what KernelBench
    draws.
    """

    def __init__(
        self, task: Task, request: dict[str, Any], device: torch.device, public: Callable[[int], Any] | None
    ) -> None:
        self._task = task
        self._precision = request["precision"]
        self._device = device
        self._seeds = input_seeds(request["trials"])
        self._public = public
        names = _names_read(task.get_inputs, task.context)
        self._bound: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (task.context, {name: task.context.get(name) for name in names}),
            *((vars(owner), dict(vars(owner))) for owner in (torch, torch.Tensor)),
        ]

    def __getitem__(self, number: int) -> list[Any]:
        seed = self._seeds[number]
        if self._public is None or self._rebound():
            return draw_inputs(self._task, seed, self._precision, self._device)
        inputs = self._public(number)
        torch.manual_seed(seed)
        return list(inputs)

    def _rebound(self) -> bool:
        return any(not _same(now.get(name), then[name]) for now, then in self._bound for name in then)


def _names_read(function: Callable[..., Any], context: dict[str, Any]) -> set[str]:
    """Globals that `function` reads, itself or through functions of the same globals."""
    names: set[str] = set()
    functions = [function]
    while functions:
        codes = [getattr(functions.pop(), "__code__", None)]
        while codes:
            code = codes.pop()
            if code is None:
                continue
            codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
            new = set(code.co_names) & context.keys() - names
            names |= new
            functions += [context[name] for name in new if isinstance(context[name], types.FunctionType)]
    return names


def _same(now: Any, then: Any) -> bool:
    """Candidates often repeat the task's constants. A tensor has no `==` that says yes or no."""
    if now is then or type(now) is not type(then):
        return now is then
    if isinstance(then, tuple):
        return len(now) == len(then) and all(map(_same, now, then))
    return isinstance(then, int | float | str) and bool(now == then)


def judge(request: dict[str, Any], public: Callable[[int], Any] | None) -> dict[str, Any]:
    """KernelBench's fields for the candidate, without the reference's times, as plain JSON.

    `public` gives the inputs of a seed by its number in `input_seeds`; without it they are drawn here.
    """
    device = torch.device(request["device"])
    torch.set_num_threads(request["threads"])
    metadata: dict[str, Any] = {"hardware": device_name(device), "device": str(device)}
    task = load_task(request["task_source"])
    reference, init_inputs = _reference(task, request["precision"], device)
    inputs = _Inputs(task, request, device, public)
    try:
        _execute_as_file(request["source"], task.context)
        new_class = task.context["ModelNew"]
    except Exception as error:  # noqa: BLE001 - KernelBench takes any failure here for a compilation error
        metadata["compilation_error_name"] = _qualified(error)
        metadata["compilation_error"] = str(error)[:2000]
        return _fields(compiled=False, correctness=False, metadata=metadata)
    try:
        torch.manual_seed(_SEED)
        with torch.no_grad():
            candidate = _place(new_class(*init_inputs), request["precision"], device)
            _synchronize(device)
        correct = _check(reference, candidate, inputs, request, device, metadata)
        stats: dict[str, float] = {}
        if correct:
            stats = statistics(_times(candidate, inputs[request["trials"]], request["timed"], device))
    except Exception as error:  # noqa: BLE001 - KernelBench takes any failure here for a runtime error
        metadata["runtime_error"] = str(error)[:2000]
        metadata["runtime_error_name"] = _qualified(error)
        return _fields(compiled=True, correctness=False, metadata=metadata)
    return _fields(compiled=True, correctness=correct, metadata=metadata, stats=stats)


def reference_stats(
    source: str, precision: str, device: torch.device, timed: int, inputs: Sequence[Any] | None
) -> dict[str, float]:
    """The reference's times by the same protocol, in a process that holds no candidate."""
    task = load_task(source)
    model, _ = _reference(task, precision, device)
    if inputs is None:
        inputs = draw_inputs(task, _SEED, precision, device)
    return statistics(_times(model, inputs, timed, device))


def device_name(device: torch.device) -> str:
    """KernelBench's `hardware`: the card's name, `cpu` for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def statistics(times_ms: list[float]) -> dict[str, float]:
    """Mean, std, min, max with three significant digits, and their number."""
    mean = sum(times_ms) / len(times_ms)
    std = math.sqrt(sum((t - mean) ** 2 for t in times_ms) / len(times_ms))
    figures = {"mean": mean, "std": std, "min": min(times_ms), "max": max(times_ms)}
    return {**{name: float(f"{value:.3g}") for name, value in figures.items()}, "num_trials": len(times_ms)}


def _check(
    reference: Any,
    candidate: Any,
    inputs: _Inputs,
    request: dict[str, Any],
    device: torch.device,
    metadata: dict[str, Any],
) -> bool:
    tolerance = _TOLERANCE[request["precision"]]
    passed, trials = 0, request["trials"]
    seeds = input_seeds(trials)
    arguments: list[Any] = []
    with torch.no_grad():
        for trial in range(trials):
            # KernelBench lets go of a trial's inputs first: the next ones may come to lie where they were.
            arguments.clear()
            arguments = inputs[trial]
            torch.manual_seed(seeds[trial])
            _synchronize(device)
            expected = reference(*arguments)
            _synchronize(device)
            got = candidate(*arguments)
            _synchronize(device)
            if expected.shape != got.shape:
                metadata["correctness_issue"] = (
                    f"Output shape mismatch: Expected {expected.shape}, got {got.shape}"
                )
                return False
            if not torch.allclose(expected, got, atol=tolerance, rtol=tolerance):
                difference = (expected - got).abs()
                metadata.setdefault("max_difference", []).append(f"{difference.max().item():.6f}")
                metadata.setdefault("avg_difference", []).append(f"{difference.mean().item():.6f}")
                metadata["correctness_issue"] = "Output mismatch"
            else:
                passed += 1
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
            _synchronize(device)
        for _ in range(_DISCARDED):
            measure(model, inputs, flush, device)
        times: list[float] = []
        while len(times) < timed and not is_settled(times):
            times.append(measure(model, inputs, flush, device))
    return times


def is_settled(times_ms: list[float]) -> bool:
    """Whether a slow kernel has been timed for long enough: the mean's standard error is a percent.

    KernelBench itself makes all of its calls. Where they take more than 0.3 s, they hold the device
    from others and hardly change the mean.
    """
    if len(times_ms) < _FEWEST_TIMED or sum(times_ms) < _ENOUGH_MS:
        return False
    mean = sum(times_ms) / len(times_ms)
    variance = sum((ms - mean) ** 2 for ms in times_ms) / (len(times_ms) - 1)
    return math.sqrt(variance / len(times_ms)) <= _SETTLED * mean


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


def _reference(task: Task, precision: str, device: torch.device) -> tuple[Any, list[Any]]:
    torch.manual_seed(_SEED)
    init_inputs = [_cast(value, precision, device) for value in task.get_init_inputs()]
    with torch.no_grad():
        torch.manual_seed(_SEED)
        return _place(task.model(*init_inputs), precision, device), init_inputs


def _execute_as_file(source: str, context: dict[str, Any]) -> None:
    path = Path.cwd() / "candidate.py"
    path.write_text(source)
    context["__file__"] = str(path)
    exec(compile(source, str(path), "exec"), context)


def _place(model: Any, precision: str, device: torch.device) -> Any:
    return model.to(device=device, dtype=DTYPES[precision])  # type: ignore[index]


def _cast(value: Any, precision: str, device: torch.device) -> Any:
    """Every tensor, integers included: KernelBench casts all of them."""
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=DTYPES[precision])  # type: ignore[index]
    return value


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _fields(
    *, compiled: bool, correctness: bool, metadata: dict[str, Any], stats: dict[str, float] | None = None
) -> dict[str, Any]:
    return {
        "compiled": compiled,
        "correctness": correctness,
        "metadata": metadata,
        "runtime": stats["mean"] if stats else -1.0,
        "runtime_stats": stats or {},
    }
