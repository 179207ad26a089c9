"""Baselines: other ways to run a task's reference. They are judged like candidates, by the same timer.

A baseline is the task's own source with a `ModelNew` that wraps its `Model`. Its speedup over eager PyTorch
is measured once for each task and kept. A kernel's speedup over the baseline is the quotient of the two
speedups over eager, so a device that became slower between the two sessions does not change it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured, Outcome, Speedup, outcome_name
from kbopt.core.protocol import Clock, EvalProtocol
from kbopt.evaluation.sandbox.memory import KilledForMemory
from kbopt.evaluation.server.devices import Device

_COMPILE_S = 600.0
"""Seconds for a baseline's check and timing, with compilation: on a GPU max-autotune tries dozens of kernels.
On a CPU it tries one in C++ for each batched product, which takes 6 to 14 s on a busy machine."""
_TRIALS = 1
"""Checks of a baseline: it runs the reference itself, so one is enough."""
_CLOCKS: tuple[Clock, ...] = ("device", "latency")
_COMPILED = """

class ModelNew(Model):
    def __init__(self, *args):
        super().__init__(*args)
        self._compiled = torch.compile(super().forward{mode})

    def forward(self, *args):
        return self._compiled(*args)
"""
_GRAPH = """

class ModelNew(Model):
    _graph = None

    def forward(self, *args):
        if self._graph is None:
            self._capture(args)
        for place, value in zip(self._args, args):
            if isinstance(value, torch.Tensor):
                place.copy_(value)
        self._graph.replay()
        return self._result

    def _capture(self, args):
        self._args = [value.clone() if isinstance(value, torch.Tensor) else value for value in args]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().forward(*self._args)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = super().forward(*self._args)
        self._graph = graph
"""
_SOONER = """import torch._inductor.config
import torch._inductor.cpu_vec_isa
torch._inductor.config.cpp.vec_isa_ok = True
torch._inductor.cpu_vec_isa.VecISA.check_build = lambda isa, code: True
torch._inductor.config.cpp_cache_precompile_headers = False
"""
"""On a CPU Inductor compiles a program for each vector extension of the processor, to test the compiler, and
its headers ahead of the kernels. The tests take half of a first call; torch 2.13 leaves some of them to
`check_build` alone. The headers take 6.9 s and save each kernel 1.6 s, most models are four kernels or fewer,
and a sandbox leaves nothing of them for the next. So this skips both. If the baseline then fails, it is
judged again without these lines."""
_SOURCES = {
    "compile": _COMPILED.format(mode=""),
    "max-autotune": _COMPILED.format(mode=', mode="max-autotune"'),
    "cuda-graph": _GRAPH,
}
_ON_CUDA_ONLY = {"cuda-graph": "CUDA graphs are for GPUs"}
_FORWARD_ONLY = {"cuda-graph": "a graph of forward alone has no gradients"}
_RANKING = {"compile": ("compile",), "best": tuple(_SOURCES)}

Judge = Callable[[EvalRequest, bool], Outcome]
"""Judges a source like a candidate, if the second argument is true in several pairs of processes on a CPU."""


class Baselines:
    """Measures the speedups of baselines over eager and keeps them in files under `root`.

    The key of a file is a hash of task, device, driver, torch and protocol. `judge` takes the lease on a GPU.
    """

    def __init__(self, device: Device, root: Path, judge: Judge) -> None:
        self._device = device
        self._root = root
        self._judge = judge
        self._measuring: dict[str, threading.Lock] = {}  # Its `setdefault` is atomic.
        self._equal_code: dict[str, tuple[Speedup, ...]] = {}

    def of(self, request: EvalRequest, *, alone: bool = False) -> tuple[Speedup, ...]:
        """Return the speedup of each baseline over eager, by both clocks.

        These are all baselines if the request asks for them, else those that the protocol ranks by. Raises
        KilledForMemory; if the request runs `alone`, only for a baseline that ranks.
        """
        names = tuple(_SOURCES) if request.baselines else _RANKING.get(request.protocol.baseline, ())
        return tuple(speedup for name in names for speedup in self._baseline(request, name, alone))

    def _baseline(self, request: EvalRequest, name: str, alone: bool) -> tuple[Speedup, ...]:
        ranks = name in _RANKING.get(request.protocol.baseline, ())
        return self._unless_lost(name, lambda: self._one(request, name), alone and not ranks)

    def equal_code(self, request: EvalRequest, *, alone: bool = False) -> Speedup:
        """Return the speedup of the task's own model over itself, by the protocol's clock.

        It says how steady the machine is today, so it is kept only while this service runs. Raises
        KilledForMemory unless the request runs `alone`.
        """
        found = self._unless_lost("equal code", lambda: self._equal_code_of(request), alone)
        return next(speedup for speedup in found if speedup.clock == request.protocol.clock)

    def _equal_code_of(self, request: EvalRequest) -> tuple[Speedup, ...]:
        key = self._key(request, "")
        with self._measuring.setdefault(key, threading.Lock()):
            if key not in self._equal_code:
                self._equal_code[key] = self._judged("equal code", request, request.task.equal_code)
            return self._equal_code[key]

    def _unless_lost(
        self, name: str, measure: Callable[[], tuple[Speedup, ...]], is_left_out: bool
    ) -> tuple[Speedup, ...]:
        """Return what `measure` returns, or the reason why a baseline was lost with the machine.

        A loss is not stored, because the baseline may run another time. KilledForMemory is raised unless
        `is_left_out`, so that the request is tried again alone.
        """
        try:
            return measure()
        except KilledForMemory as error:
            if not is_left_out:
                raise
            return _does_not_run(name, str(error))
        except InfraError as error:
            return _does_not_run(name, str(error))

    def _one(self, request: EvalRequest, name: str) -> tuple[Speedup, ...]:
        if not self._device.is_cuda and name in _ON_CUDA_ONLY:
            return _does_not_run(name, _ON_CUDA_ONLY[name])
        if request.protocol.backward and name in _FORWARD_ONLY:
            return _does_not_run(name, _FORWARD_ONLY[name])
        file = self._root / f"{self._key(request, name)}.json"
        with self._measuring.setdefault(file.name, threading.Lock()):
            with suppress(FileNotFoundError, ValueError):
                return tuple(codec.decode(tuple[Speedup, ...], json.loads(file.read_text())))
            found = self._judged(name, request, f"import torch\n{request.task.source}{_SOURCES[name]}")
            self._root.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            partial.write_text(codec.dumps(list(found)))
            partial.rename(file)
            return found

    def _judged(self, name: str, request: EvalRequest, source: str) -> tuple[Speedup, ...]:
        protocol = replace(
            request.protocol,
            trials=_TRIALS,
            torch_ops="allow",
            outputs="reusable",
            baseline="eager",
            clock="device",
            timeout_s=max(_COMPILE_S, request.protocol.timeout_s),
        )
        judged = replace(request, source=source, protocol=protocol, kernelbench=False, baselines=False)
        try:
            outcome: Outcome | None = None
            if name in _SOURCES and not self._device.is_cuda:
                outcome = self._judge(replace(judged, source=f"{_SOONER}{source}"), False)
            if not isinstance(outcome, Measured):
                outcome = self._judge(judged, name not in _SOURCES)
        except UserError as error:
            return _does_not_run(name, str(error))
        if not isinstance(outcome, Measured):
            return _does_not_run(name, f"{outcome_name(outcome)}: {outcome.reason}"[:500])
        return tuple(
            replace(over_eager, baseline=name)
            for clock in _CLOCKS
            if (over_eager := outcome.over("eager", clock)) is not None
        )

    def _key(self, request: EvalRequest, name: str) -> str:
        driver = Path("/proc/driver/nvidia/version")
        protocol = request.protocol
        parts: dict[str, Any] = {
            "task": request.task.source,
            "wrapper": _SOURCES.get(name, ""),
            "protocol": EvalProtocol(
                precision=protocol.precision,
                arithmetic=protocol.arithmetic,
                eval_mode=protocol.eval_mode,
                backward=protocol.backward,
            ).id,
            "device": self._device.hardware,
            "driver": driver.read_text() if driver.exists() else "",
            "toolchain": self._device.toolchain.key,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def compared(kernel: Measured, baselines: Sequence[Speedup]) -> Measured:
    """Return `kernel` with its speedups over `baselines`, which are given as speedups over eager."""
    found = [
        other if other.reason else _quotient(over_eager, other)
        for other in baselines
        if (over_eager := kernel.over("eager", other.clock)) is not None
    ]
    return replace(kernel, speedups=(*kernel.speedups, *found))


def ranked(kernel: Measured, protocol: EvalProtocol) -> Measured:
    """Return `kernel` with the speedup that the protocol ranks by. Baselines that do not run are left out."""
    ways = [s for s in kernel.speedups if s.clock == protocol.clock and not s.reason]
    if protocol.baseline == "compile":
        ways = [s for s in ways if s.baseline == "compile"] or [s for s in ways if s.baseline == "eager"]
    elif protocol.baseline == "eager":
        ways = [s for s in ways if s.baseline == "eager"]
    if not ways:
        return kernel
    chosen = min(ways, key=lambda s: s.speedup)
    return replace(kernel, speedup=chosen.speedup, speedup_ci=chosen.interval)


def _does_not_run(name: str, reason: str) -> tuple[Speedup, ...]:
    return tuple(Speedup(baseline=name, clock=clock, reason=reason) for clock in _CLOCKS)


def _quotient(kernel: Speedup, baseline: Speedup) -> Speedup:
    """Return the quotient of two speedups over eager. The errors of the logarithms add in quadrature."""
    ratio = kernel.speedup / baseline.speedup
    low, high = (
        math.hypot(*(abs(math.log(s.interval[end] / s.speedup)) for s, end in sides))
        for sides in (((kernel, 0), (baseline, 1)), ((kernel, 1), (baseline, 0)))
    )
    return Speedup(
        baseline=baseline.baseline,
        clock=kernel.clock,
        baseline_ms=kernel.baseline_ms / baseline.speedup,
        kernel_ms=kernel.kernel_ms,
        speedup=ratio,
        interval=(ratio * math.exp(-low), ratio * math.exp(high)),
    )
