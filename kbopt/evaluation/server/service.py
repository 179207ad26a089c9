"""The supervisor: it runs each request through build, check and timing, or describes a task.

Each request runs in one thread as sequential code. Requests share the device lease and the fork server.
Nothing here executes or imports a candidate, a task or torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, KernelBenchVerdict, Refused, Result, TaskReport
from kbopt.core.outcomes import Crashed, Measured, Outcome
from kbopt.core.ports import Phase
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.evaluation.build.building import Builder, Built, num_builds_at_once
from kbopt.evaluation.build.inspection import arithmetic_of
from kbopt.evaluation.kernelbench import verdicts
from kbopt.evaluation.messages import ServiceInfo
from kbopt.evaluation.sandbox.children import ForkServerHandle, warm_up
from kbopt.evaluation.sandbox.confinement import scrubbed
from kbopt.evaluation.sandbox.memory import REMEDY, Host, KilledForMemory, find_host, gib
from kbopt.evaluation.server import baselines, feedback
from kbopt.evaluation.server.activity import Activity
from kbopt.evaluation.server.baselines import Baselines
from kbopt.evaluation.server.budget import Budget, Need, Reservation
from kbopt.evaluation.server.cores import Cores, keep_cores
from kbopt.evaluation.server.describing import Describing
from kbopt.evaluation.server.devices import find_device
from kbopt.evaluation.server.judge_handle import failed_test
from kbopt.evaluation.server.judges import Judges, key_of
from kbopt.evaluation.server.kernelbench import KernelBench
from kbopt.evaluation.server.lease import Lease
from kbopt.evaluation.server.measuring import Measuring
from kbopt.evaluation.server.needs import need_of
from kbopt.evaluation.server.profiling import Profiling
from kbopt.evaluation.server.quiet import Quiet
from kbopt.evaluation.server.sandboxes import Sandboxes
from kbopt.evaluation.server.timeline import Judged, Timeline
from kbopt.evaluation.server.turns import Turns

T = TypeVar("T")

MAX_CONCURRENT = 64
"""Requests that run or wait in the service at once."""
_NUM_WAITING = 2
"""Built candidates and descriptions on a GPU that wait for the device with their CUDA contexts ready."""


class _KilledAlone(InfraError):
    """The kernel killed a candidate's process for memory while nothing else ran."""


class Service:
    """Evaluates requests on one device; `evaluate` may be called from many threads.

    `say` is called with the number of requests in each phase whenever that changes.
    """

    def __init__(
        self,
        device: str,
        state_dir: Path,
        host: Host | None = None,
        say: Callable[[Mapping[Phase, int]], None] = lambda _: None,
    ) -> None:
        self._activity = Activity(say)
        began = time.monotonic()
        state_dir.mkdir(parents=True, exist_ok=True)
        environ = scrubbed(os.environ)
        host = host or find_host()
        self._fork_server = ForkServerHandle(state_dir, os.environ, device=device, host=host)
        forking = time.monotonic()
        self.device = find_device(device, self._fork_server)
        found = time.monotonic()
        if self.device.others:
            only_this = {"CUDA_VISIBLE_DEVICES": self.device.uuid}
            environ |= only_this
            self._fork_server.set_environment(only_this)
        cores = keep_cores(self._fork_server) if self.device.is_cuda else Cores()
        self._budget = Budget(host, MAX_CONCURRENT if self.device.is_cuda else 1, self._close_idle)
        self.boot = uuid.uuid4().hex[:12]
        self.started = time.time()
        self._lease = Lease()
        self._sandboxes = Sandboxes(
            self._fork_server,
            self.device,
            state_dir,
            environ,
            self.boot,
            lambda: self._budget.available_bytes,
        )
        self._builder = Builder(
            self._fork_server,
            state_dir / "builds",
            self.device,
            lambda built: self._sandboxes.config(built, build_writable=True),
        )
        if self.device.is_cuda:
            self._builder.prepare()
            self._sandboxes.find_working()
        self._baselines = Baselines(self.device, state_dir / "baselines", self._judge_baseline)
        self._arithmetic_of = cache(partial(arithmetic_of, self._sandboxes.child))
        self._judges = Judges(
            self._fork_server, self.device, self._sandboxes.config, self._lease, self._budget.forget
        )
        self._measuring = Measuring(
            self.device, self._judges, self._sandboxes, self._arithmetic_of, cores, self._activity
        )
        self._quiet = Quiet()
        self._turns = Turns(1 + _NUM_WAITING if self.device.is_cuda else 1, self._judges.is_warm)
        self._describing = Describing(self.device, self._judges, self._turns, cores)
        self._profiling = Profiling(
            self.device,
            self._lease,
            self._judges,
            self._sandboxes,
            self._builder,
            self._describing,
            self._reserve,
            self._quiet,
        )
        self._kernelbench = KernelBench(self.device, self._lease, self._judges, self._sandboxes, cores)
        self._build_slots = threading.BoundedSemaphore(num_builds_at_once(self.device))
        spent = f"{forking - began:.1f} s for torch, {found - forking:.1f} s for the device"
        print(f"ready after {time.monotonic() - began:.1f} s, of which {spent}", file=sys.stderr, flush=True)

    def about(self) -> ServiceInfo:
        return ServiceInfo(
            device=self.device.name,
            boot=self.boot,
            started=self.started,
            pid=os.getpid(),
            isolation=self._sandboxes.isolation,
            is_isolated=self._sandboxes.is_isolated,
            is_cuda=self.device.is_cuda,
        )

    def evaluate(self, request: EvalRequest) -> Result:
        """Judge one source. If the kernel kills one of its processes for memory, judge it again, alone.

        Raises UserError for a task that cannot be scored, and InfraError if the machine failed.
        """
        with self._quiet.busy(), self._activity.request():
            try:
                return self._with_memory(request, partial(self._evaluate_in, request))
            except _KilledAlone as error:
                outcome = Crashed(reason=str(error), how="out of memory")
                return self._result(request, Timeline(), outcome, log="")

    def describe(self, request: EvalRequest) -> TaskReport:
        """Return whether the request's task can be scored, and what that takes. Raises InfraError."""
        started = time.monotonic()
        try:
            with self._activity.request(), self._activity.throughout("admitting"):
                return self._with_memory(request, partial(self._describing.report, request))
        except UserError as error:
            return Refused(
                device=self.device.name,
                seconds=time.monotonic() - started,
                test=failed_test(str(error)),
                reason=str(error),
            )

    def profile(self, request: ProfileRequest) -> Profiled:
        """Profile one source while no evaluation runs, or after some seconds.

        Raises UserError for a task that cannot be scored, and InfraError.
        """
        with self._activity.request(), self._activity.throughout("profiling"):
            return self._profiling.profile(request)

    def _with_memory(self, request: EvalRequest, work: Callable[[Reservation], T]) -> T:
        """Run `work` with the host memory that the request needs.

        If the kernel kills one of its processes for memory, run it again with no other request beside it. If
        that happens again, raises UserError for a judge's process and _KilledAlone for a candidate's.
        """
        # On a GPU a request waits for its turn later, once it is built.
        with nullcontext() if self.device.is_cuda else self._turns.of(key_of(request)):
            try:
                with self._reserve(request) as reservation:
                    return work(reservation)
            except KilledForMemory as error:
                print(f"{error}; {request.task.name} is tried again alone", file=sys.stderr, flush=True)
            with self._reserve(request, alone=True) as reservation:
                try:
                    return work(reservation)
                except KilledForMemory as error:
                    raise self._killed_alone(error, reservation) from None

    def _close_idle(self, keep: Collection[Hashable]) -> bool:
        return self._judges.close_idle(keep)

    def _evaluate_in(self, request: EvalRequest, reservation: Reservation) -> Result:
        result = self._evaluate(request, reservation)
        if self._builder.builds_more(request, result.outcome):
            return self._evaluate(request, reservation)
        return result

    def _reserve(self, request: EvalRequest, *, alone: bool = False) -> AbstractContextManager[Reservation]:
        what = f"task {request.task.name}"
        return self._budget.reserve(key_of(request), what, lambda: self._need(request), alone=alone)

    def _need(self, request: EvalRequest) -> Need:
        compiles = request.baselines or request.protocol.baseline != "eager"
        return need_of(
            request.source,
            self._judges.sizes_of(request),
            on_cuda=self.device.is_cuda,
            compiles=compiles,
            kernelbench=request.kernelbench,
        )

    def _killed_alone(self, error: KilledForMemory, reservation: Reservation) -> UserError | _KilledAlone:
        host, need = self._budget.host, reservation.need
        figures = (
            f"{error} while nothing else ran: {reservation.what} needs about {gib(need.own + need.judge)} of "
            f"host memory, and may use {gib(self._budget.available_bytes)} of {gib(host.limit_bytes)}, "
            f"{host.source}"
        )
        return UserError(f"{figures}; {REMEDY}") if error.of_judge else _KilledAlone(figures)

    def _judge_baseline(self, request: EvalRequest, in_pairs: bool) -> Outcome:
        """Judge a baseline: the task's own source with a model that runs the reference in another way."""
        built = self._builder.build(request)
        if not isinstance(built, Built):
            return built.outcome
        with closing(self._sandboxes.child(built)) as child:
            if not self.device.is_cuda:  # The caller holds the lease.
                return self._measuring.measure(request, built, Timeline(), child, in_pairs=in_pairs).outcome
            warm_up([child], self.device.torch, built.setup, triton=True)
            with self._judges.awaited(request), self._lease.to_go_on():
                return self._measuring.measure(request, built, Timeline(), child).outcome

    def _evaluate(self, request: EvalRequest, reservation: Reservation) -> Result:
        timeline = Timeline()
        if self.device.is_cuda:
            with self._judges.awaited(request):
                judge_is_ready = self._judges.prepare(request)
                with self._build_slots, timeline.span("compile"):
                    self._activity.enter("building")
                    built = self._builder.build(request)
                if isinstance(built, Built):
                    self._activity.enter("waiting" if judge_is_ready.done() else "admitting")
                    judge_is_ready.result()
                    self._activity.enter("waiting")
                    turn = self._turns.of(key_of(request))
                    with turn, closing(self._sandboxes.child(built)) as child:
                        warm_up([child], self.device.torch, built.setup, triton="triton" in request.source)
                        if request.protocol.precision == "fp32":
                            self._arithmetic_of(built)
                        with self._judges.at_hand(request):
                            judged = self._measuring.measure(request, built, timeline, child, reservation)
            if isinstance(built, Built):
                with self._activity.throughout("comparing") if request.is_compared else nullcontext():
                    return self._completed(request, built, judged, timeline, reservation)
        else:
            # On a CPU a build would disturb the timing of another candidate, so it needs the lease too.
            with self._lease:
                with timeline.span("compile"):
                    self._activity.enter("building")
                    built = self._builder.build(request)
                if isinstance(built, Built):
                    with closing(self._sandboxes.child(built)) as child:
                        judged = self._measuring.measure(request, built, timeline, child, reservation)
                    with self._activity.throughout("comparing") if request.is_compared else nullcontext():
                        return self._completed(request, built, judged, timeline, reservation)
        verdict = None
        if request.kernelbench:
            verdict = verdicts.kernelbench_failure(built.outcome, self.device.hardware, self.device.torch)
        return self._result(request, timeline, built.outcome, verdict, log=built.log)

    def _completed(
        self,
        request: EvalRequest,
        built: Built,
        judged: Judged,
        timeline: Timeline,
        reservation: Reservation,
    ) -> Result:
        """Return the result with baselines and KernelBench's verdict, as far as asked for.

        On a GPU the caller does not hold the lease, because each part takes it itself.
        """
        outcome, verdict = judged.outcome, None
        if isinstance(outcome, Measured):
            if not self._sandboxes.is_isolated:
                notes = (feedback.NO_SANDBOX_NOTE, *outcome.audit.notes)
                outcome = replace(outcome, audit=replace(outcome.audit, notes=notes))
            try:
                others = self._baselines.of(request, alone=reservation.alone)
                if request.baselines:
                    equal_code = self._baselines.equal_code(request, alone=reservation.alone)
                    outcome = replace(outcome, equal_code=equal_code)
            except KilledForMemory as error:
                if reservation.alone:
                    raise InfraError(f"a baseline cannot be measured: {error}") from None
                raise
            outcome = baselines.compared(outcome, others)
            outcome = baselines.ranked(outcome, request.protocol)
        if request.kernelbench:
            try:
                with timeline.span("time"):
                    verdict = self._kernelbench.judge(request, built, outcome, timeline)
            except KilledForMemory as error:
                if not reservation.alone:
                    raise
                crash = Crashed(reason=f"by KernelBench's protocol {error}", how="out of memory")
                verdict = verdicts.kernelbench_failure(crash, self.device.hardware, self.device.torch)
        return self._result(request, timeline, outcome, verdict, log=judged.log, frames=judged.frames)

    def close(self) -> None:
        self._judges.close()
        self._fork_server.close()

    def _result(
        self,
        request: EvalRequest,
        timeline: Timeline,
        outcome: Outcome,
        kernelbench: KernelBenchVerdict | None = None,
        *,
        log: str,
        frames: str = "",
    ) -> Result:
        compared = None if request.protocol.backward else kernelbench  # That one is of forward alone.
        return Result(
            outcome=outcome,
            feedback=feedback.for_outcome(outcome, frames, log, compared),
            device=self.device.name,
            protocol=request.protocol.id,
            boot=self.boot,
            seconds=timeline.seconds(),
            device_s=timeline.device_s,
            spans=timeline.spans(),
            kernelbench=kernelbench,
            log=log,
        )
