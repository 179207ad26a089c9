"""Profiles candidates, tier by tier, while nothing is evaluated. No verdict depends on a profile.

Each tier holds the device by itself and for a limited time, so that an evaluation waits for at most one tier.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from kbopt.core.bottleneck import bottleneck
from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.profile import (
    Code,
    Counters,
    Missing,
    NotProfiled,
    Profile,
    Profiled,
    ProfileRequest,
    TierSeconds,
    Trace,
)
from kbopt.evaluation import messages
from kbopt.evaluation.build.building import Builder, Built, NotBuilt
from kbopt.evaluation.profile.occupancy import with_occupancy
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.sandbox.memory import REMEDY, KilledForMemory
from kbopt.evaluation.server import feedback
from kbopt.evaluation.server.budget import Reservation
from kbopt.evaluation.server.describing import Describing
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judges import Judges, key_of
from kbopt.evaluation.server.lease import Lease
from kbopt.evaluation.server.on_device import answer_of
from kbopt.evaluation.server.quiet import Quiet
from kbopt.evaluation.server.sandboxes import Sandboxes
from kbopt.evaluation.transport.channel import ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import CandidateForged, failure_in, value_of

_PATIENCE_S = 10.0
"""Seconds that a profile waits for evaluations to end before it takes its turn among them, as in `turns`."""
_CODE_S = 60.0
"""Seconds for the disassemblers, which do not use the device."""
_LOADING_S = 120.0
"""Seconds to import a candidate, without the device."""
_TRACE_S = 30.0
"""Seconds that a trace may hold the device, for a few calls and for what the first one compiles or tunes."""
_COUNTERS_S = 40.0
"""Seconds that counters may hold the device. `profile_process` has a shorter limit of its own."""
_MOST_REFERENCES = 64
"""Traces of references that are kept, one for each task."""

_MOST = {"reason": 400, "share": 1.0}
"""Characters of a reason, and a share, at most."""

_ON_CPU = Missing(reason="hardware counters are read on NVIDIA GPUs only")
_NOT_ASKED = Missing(reason="they were not asked for")


class Profiling:
    """Profiles one request at a time. `reserve` grants host memory. It takes the lease itself."""

    def __init__(
        self,
        device: Device,
        lease: Lease,
        judges: Judges,
        sandboxes: Sandboxes,
        builder: Builder,
        describing: Describing,
        reserve: Callable[[EvalRequest], AbstractContextManager[Reservation]],
        quiet: Quiet,
    ) -> None:
        self._device = device
        self._lease = lease
        self._judges = judges
        self._sandboxes = sandboxes
        self._builder = builder
        self._describing = describing
        self._reserve = reserve
        self._quiet = quiet
        self._turn = threading.Lock()  # One profile at a time, so that an evaluation waits for one only.
        self._references: dict[Hashable, Trace | Missing] = {}

    def profile(self, request: ProfileRequest) -> Profiled:
        """Profile a candidate. Raises UserError for a task that cannot be scored, and InfraError."""
        # Reserves memory as for KernelBench's protocol, which also has two models in one process.
        asked = EvalRequest(
            task=request.task, source=request.source, protocol=request.protocol, kernelbench=True
        )
        clock = _Clock()
        try:
            with self._taking_turn(clock), self._reserve(asked) as reservation:
                return self._profiled(asked, reservation, clock, with_counters=request.counters)
        except KilledForMemory as error:
            reason = f"memory ran out while {request.task.name} was profiled: {error}; {REMEDY}"
            raise InfraError(reason) from None

    @contextmanager
    def _taking_turn(self, clock: _Clock) -> Iterator[None]:
        """Wait for other profiles to end, and up to `_PATIENCE_S` seconds for evaluations."""
        with ExitStack() as turn:
            with clock.of("waiting"):
                turn.enter_context(self._turn)
                self._quiet.wait(_PATIENCE_S)
            yield

    def _profiled(
        self, asked: EvalRequest, reservation: Reservation, clock: _Clock, *, with_counters: bool
    ) -> Profiled:
        on_cuda = self._device.is_cuda
        with clock.of("build"), nullcontext() if on_cuda else self._lease:
            built = self._builder.build(asked)
        if isinstance(built, NotBuilt):
            return NotProfiled(reason=feedback.for_outcome(built.outcome, log=built.log))
        with clock.of("code"), nullcontext() if on_cuda else self._lease:
            code = self._code(built)
        with clock.of("trace"):
            described, _ = self._describing.described(asked, reservation)
            reference = self._reference(asked, clock)
            trace = self._trace(asked, built, clock)
        if isinstance(trace, NotProfiled):
            return trace
        counters: Counters | Missing = _NOT_ASKED if on_cuda else _ON_CPU
        if on_cuda and with_counters:
            with clock.of("waiting"):
                self._quiet.wait(_PATIENCE_S)
            with clock.of("counters"):
                counters = self._counters(asked, built, clock)
        trace = self._with_rates(trace, described)
        return Profile(
            device=replace(described.facts, name=self._device.name),
            limits=described.limits,
            code=code,
            trace=trace,
            counters=counters,
            reference=reference if isinstance(reference, Missing) else self._with_rates(reference, described),
            bottleneck=bottleneck(described.limits, trace, counters, code, on_cuda=on_cuda),
            seconds=clock.seconds,
        )

    def _code(self, built: Built) -> Code | Missing:
        job = messages.Dissect(folder=built.folder, on_cuda=self._device.is_cuda)
        with closing(self._sandboxes.child(built, "dissect")) as child:
            try:
                code: Code | Missing = told(Code | Missing, child.ask(job, _CODE_S))
                return code
            except (ChannelClosed, WireError, CandidateForged, TimeoutError):
                return Missing(reason="the process that reads machine code gave no answer")

    def _reference(self, request: EvalRequest, clock: _Clock) -> Trace | Missing:
        """Return the trace of the task's own model. It is made once for each task."""
        key = key_of(request)
        if key not in self._references:
            own = replace(request, source=request.task.equal_code)
            traced = self._trace(own, None, clock)
            found = Missing(reason=traced.reason) if isinstance(traced, NotProfiled) else traced
            if len(self._references) >= _MOST_REFERENCES:
                self._references.pop(next(iter(self._references)))
            self._references[key] = found
        return self._references[key]

    def _trace(self, request: EvalRequest, built: Built | None, clock: _Clock) -> Trace | NotProfiled:
        with closing(self._sandboxes.child(built, "trace")) as child:
            try:
                answer = self._with_device(child, request, built, clock, _TRACE_S)
                match failure_in(answer):
                    case messages.Raised() as raised:
                        return NotProfiled(reason=f"its call failed: {raised}\n{raised.frames}".rstrip())
                    case messages.SourceRefused(reason=reason):
                        return NotProfiled(reason=reason)
                trace: Trace = told(Trace, answer)
                return trace
            except TimeoutError:
                return NotProfiled(reason=f"a few calls took longer than {_TRACE_S:g} s")
            except (WireError, CandidateForged) as error:
                return NotProfiled(reason=f"what its process said of the call cannot be read: {error}")
            except ChannelClosed:
                return NotProfiled(reason=f"its call was not traced: {child.crash().reason}")

    def _counters(self, request: EvalRequest, built: Built, clock: _Clock) -> Counters | Missing:
        with closing(self._sandboxes.child(built, "count")) as child:
            try:
                answer = self._with_device(child, request, built, clock, _COUNTERS_S)
                counters: Counters | Missing = told(Counters | Missing, answer)
                return counters
            except TimeoutError:
                return Missing(reason=f"Nsight Compute was not done within {_COUNTERS_S:g} s")
            except (ChannelClosed, WireError, CandidateForged) as error:
                return Missing(reason=f"the process that runs Nsight Compute gave no answer: {error}")

    def _with_device(
        self, child: Child, request: EvalRequest, built: Built | None, clock: _Clock, limit_s: float
    ) -> Any:
        @contextmanager
        def turn() -> Iterator[None]:
            with self._lease, clock.of("device"):
                self._judges.make_room(request)
                yield

        setup = built.setup if built else ""
        answer, _ = answer_of(child, request, setup, self._device, turn, loading_s=_LOADING_S, held_s=limit_s)
        return answer

    def _with_rates(self, trace: Trace, described: messages.Description) -> Trace:
        limits, busy_us, arch = described.limits, trace.busy_us, self._device.toolchain.arch
        parts = tuple(
            part if part.launch is None else replace(part, launch=with_occupancy(part.launch, arch))
            for part in trace.parts
        )
        return replace(
            trace,
            parts=parts,
            gbps=limits.size_bytes / busy_us / 1e3 if busy_us else 0.0,
            tflops=limits.operations / busy_us / 1e6 if busy_us else 0.0,
        )


def told(kind: Any, raw: Any) -> Any:
    """Return what an untrusted process says of a profile, bounded. Raises CandidateForged."""
    return value_of(kind, raw, "a profile", _MOST)


class _Clock:
    """Sums wall-clock seconds by stage."""

    def __init__(self) -> None:
        self._spent = defaultdict[str, float](float)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._spent[what] += time.monotonic() - started

    @property
    def seconds(self) -> TierSeconds:
        return TierSeconds(**self._spent)
