"""The supervisor: runs each request through build, check and timing, or says of a task what judging it takes.

One request is one thread, written as plain sequential code; the device lease and the fork server are what
they share. Nothing here executes or imports a candidate, a task or torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Hashable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import (
    Admitted,
    CompileFailed,
    Crashed,
    EvalProtocol,
    EvalRequest,
    KernelBenchVerdict,
    Measured,
    Outcome,
    Refused,
    Result,
    Task,
    TaskReport,
    TimedOut,
)
from kbopt.evaluation.build.building import Builder, Built, NotBuilt, num_builds_at_once
from kbopt.evaluation.build.inspection import Inspections
from kbopt.evaluation.kernelbench import verdicts
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle, warm_up
from kbopt.evaluation.sandbox.confinement import SCRATCH, Limits, SandboxConfig, scrubbed
from kbopt.evaluation.sandbox.memory import REMEDY, Host, KilledForMemory, find_host, gib
from kbopt.evaluation.server import baselines, feedback
from kbopt.evaluation.server.baselines import Baselines
from kbopt.evaluation.server.budget import Budget, Need, Reservation
from kbopt.evaluation.server.devices import find_device, num_threads
from kbopt.evaluation.server.judge_handle import JudgeHandle, NoMemory, failed_test
from kbopt.evaluation.server.judges import Judges, key_of
from kbopt.evaluation.server.lease import Lease
from kbopt.evaluation.server.needs import Data, need_of
from kbopt.evaluation.server.probe import PROBE_TASK, sandboxes_for_cuda
from kbopt.evaluation.server.timeline import Judged, Timeline
from kbopt.evaluation.timing import pairs
from kbopt.evaluation.timing.pairs import Pair
from kbopt.evaluation.transport.channel import Channel, ChannelClosed, WireError

T = TypeVar("T")

MAX_CONCURRENT = 64
_KERNELBENCH_DRAWS_S = 600.0
"""For what KernelBench's protocol does beside the device: it draws seven sets of inputs on the CPU."""
_NUM_WAITING = 2
_KERNELBENCH_AT_ONCE = 4
"""Processes that draw inputs of several GiB on the CPU, each with a CUDA context."""
_CPU_MEMORY_BYTES = 4 * 2**30

NO_SANDBOX_NOTE = (
    "No sandbox: this machine did not isolate the candidate, which could have disturbed its judge."
)
"""Shown in red by the report, which knows it by its first words."""


class Service:
    """Evaluates requests on one device; `evaluate` may be called from many threads."""

    def __init__(self, device: str, state_dir: Path, host: Host | None = None) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._state_dir = state_dir
        self._environ = scrubbed(os.environ)
        host = host or find_host()
        self._fork_server = ForkServerHandle(state_dir, os.environ, prepare_cuda=device != "cpu", host=host)
        self.device = find_device(device, self._fork_server)
        if self.device.others:
            only_this = {"CUDA_VISIBLE_DEVICES": self.device.uuid}
            self._environ |= only_this
            self._fork_server.set_environment(only_this)
        # On a CPU requests go one after the other, all of each under the lease.
        most = MAX_CONCURRENT if self.device.is_cuda else 1
        self._budget = Budget(host, most, self._close_idle)
        self.boot = uuid.uuid4().hex[:12]
        self.started = time.time()
        self._lease = Lease()
        self._serial_lock = threading.Lock()
        self._serial = 0
        self._builder = Builder(
            self._fork_server,
            state_dir / "builds",
            self.device,
            lambda built: self._sandbox(built, build_writable=True),
        )
        if self.device.is_cuda:
            self._builder.prepare()
        self._without: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()
        if self.device.is_cuda:
            self._hidden, self._without = self._find_working_sandbox()
        self._baselines = Baselines(self.device, state_dir / "baselines", self._judge_baseline)
        self._inspections = Inspections(self._child)
        self._judges = Judges(self._fork_server, self.device, self._sandbox, self._lease, self._budget.forget)
        self._kernelbench_slots = threading.BoundedSemaphore(_KERNELBENCH_AT_ONCE)
        self._waiting_slots = threading.BoundedSemaphore(1 + _NUM_WAITING)
        self._build_slots = threading.BoundedSemaphore(num_builds_at_once(self.device))

    def about(self) -> dict[str, Any]:
        return {
            "device": self.device.name,
            "boot": self.boot,
            "started": self.started,
            "pid": os.getpid(),
            "isolation": self._isolation,
            "is_isolated": self._is_isolated,
        }

    @property
    def _is_isolated(self) -> bool:
        return self._fork_server.isolates and not self._without

    @property
    def _isolation(self) -> str:
        parts = [self._fork_server.isolation]
        if self._without:
            parts.append(f"but for CUDA without {', '.join(self._without)}")
        if self.device.num_gpus > 1:
            parts.append(f"other GPUs of the machine {'hidden' if self._hidden else 'in sight'}")
        return ", ".join(parts)

    def evaluate(self, request: EvalRequest) -> Result:
        """Judge one source. Raises UserError for a task that cannot be scored, InfraError.

        Where the kernel killed a process of it because memory ran out, it is tried again, alone.
        """

        def work(reservation: Reservation) -> Result:
            try:
                return self._evaluate_in(request, reservation)
            except KilledForMemory as error:
                if not reservation.alone:
                    raise
                outcome = self._killed_alone(error, reservation)
                return self._result(request, Timeline(), outcome, log="")

        return self._with_memory(request, work)

    def describe(self, request: EvalRequest) -> TaskReport:
        """Whether the request's task can be scored, and what that takes. Its source is not looked at.

        Raises InfraError.
        """
        started = time.monotonic()

        def work(reservation: Reservation) -> Admitted:
            try:
                return self._describe_in(request, reservation)
            except KilledForMemory as error:
                if reservation.alone:
                    self._killed_alone(error, reservation)
                raise

        try:
            return self._with_memory(request, work)
        except UserError as error:
            return Refused(
                device=self.device.name,
                seconds=time.monotonic() - started,
                test=failed_test(str(error)),
                reason=str(error),
            )

    def _describe_in(self, request: EvalRequest, reservation: Reservation) -> Admitted:
        with self._lease:
            started = time.monotonic()
            judge = self._judges.of(request, lambda _: reservation.grow(self._need(request)))
            seconds = time.monotonic() - started
            seen = judge.describe()
            self._judges.settle(judge)
        need = self._need(request)
        return Admitted(
            device=self.device.name,
            seconds=seconds,
            reference_ms=seen["reference_ms"],
            floor_ms=seen["floor_ms"],
            reference_ops_ms=seen["reference_ops_ms"],
            device_bytes=seen["device_bytes"],
            host_bytes=need.own + need.judge,
            inputs_bytes=seen["inputs_bytes"],
            outputs_bytes=seen["outputs_bytes"],
            tolerance=seen["tolerance"],
            keeps_state=seen["keeps_state"],
        )

    def _with_memory(self, request: EvalRequest, work: Callable[[Reservation], T]) -> T:
        """`work` with the host memory that the request needs; where the kernel killed a process of it because
        memory ran out, once more, alone.
        """
        try:
            with self._reserve(request) as reservation:
                return work(reservation)
        except KilledForMemory as error:
            print(f"{error}; {request.task.name} is tried again alone", file=sys.stderr, flush=True)
        with self._reserve(request, alone=True) as reservation:
            return work(reservation)

    def _evaluate_in(self, request: EvalRequest, reservation: Reservation) -> Result:
        result = self._evaluate(request, reservation)
        if self._builder.builds_more(request, result.outcome):
            return self._evaluate(request, reservation)
        return result

    def _close_idle(self, keep: Collection[Hashable]) -> bool:
        return self._judges.close_idle(keep)

    def _reserve(self, request: EvalRequest, *, alone: bool = False) -> AbstractContextManager[Reservation]:
        what = f"task {request.task.name}"
        return self._budget.reserve(key_of(request), what, lambda: self._need(request), alone=alone)

    def _need(self, request: EvalRequest) -> Need:
        compiles = request.baselines or request.protocol.baseline != "eager"
        return need_of(
            request.source,
            self._judges.data_of(request),
            on_cuda=self.device.is_cuda,
            compiles=compiles,
            kernelbench=request.kernelbench,
        )

    def _killed_alone(self, error: KilledForMemory, reservation: Reservation) -> Crashed:
        """The outcome for a candidate that nobody else took memory from. Raises UserError for such a task."""
        host, need = self._budget.host, reservation.need
        figures = (
            f"{error} while nothing else ran: {reservation.what} needs about {gib(need.own + need.judge)} of "
            f"host memory, and may use {gib(self._budget.available_bytes)} of {gib(host.limit_bytes)}, "
            f"{host.source}"
        )
        if error.of_judge:
            raise UserError(f"{figures}; {REMEDY}") from None
        return Crashed(reason=figures, how="out of memory")

    def _judge_baseline(self, request: EvalRequest, in_pairs: bool) -> Outcome:
        """A baseline's outcome: its source is the task's, with a model that runs the reference in another
        way.
        """
        built = self._builder.build(request)
        if not isinstance(built, Built):
            return built.outcome
        with closing(self._child(built)) as child:
            if not self.device.is_cuda:  # Whoever asks for it has the lease.
                measure = self._measure if in_pairs else self._judge_one
                return measure(request, built, Timeline(), child).outcome
            warm_up([child], self.device.torch, built.setup, triton=True)
            with self._lease:
                return self._measure(request, built, Timeline(), child).outcome

    def _evaluate(self, request: EvalRequest, reservation: Reservation) -> Result:
        timeline = Timeline()
        if self.device.is_cuda:
            with self._judges.awaited(request):
                judge_is_ready = self._judges.prepare(request)
                with self._build_slots:
                    built = self._build(request, timeline)
                if isinstance(built, Built):
                    judge_is_ready.result()
                    # A few candidates wait with processes of their own, whose CUDA contexts are ready.
                    with self._waiting_slots, closing(self._child(built)) as child:
                        warm_up([child], self.device.torch, built.setup, triton="triton" in request.source)
                        if request.protocol.precision == "fp32":
                            self._inspections.of(built)
                        with suppress(InfraError):  # With the lease it is tried again.
                            self._judges.start(request)
                        with self._lease:
                            judged = self._measure(request, built, timeline, child, reservation)
                    return self._completed(request, built, judged, timeline, reservation)
        else:
            # On the CPU a build would disturb the timing of another candidate: it needs the lease too.
            with self._lease:
                built = self._build(request, timeline)
                if isinstance(built, Built):
                    with closing(self._child(built)) as child:
                        judged = self._measure(request, built, timeline, child, reservation)
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
        """The result, with what a full evaluation asks for besides. On a GPU without the lease, which each
        part takes for itself.
        """
        outcome, verdict = judged.outcome, None
        if isinstance(outcome, Measured):
            if not self._is_isolated:
                notes = (NO_SANDBOX_NOTE, *outcome.audit.notes)
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
            started = time.time()
            try:
                verdict = self._kernelbench(request, built, outcome, timeline)
            except KilledForMemory as error:
                if not reservation.alone:
                    raise
                crash = Crashed(reason=f"by KernelBench's protocol {error}", how="out of memory")
                verdict = verdicts.kernelbench_failure(crash, self.device.hardware, self.device.torch)
            timeline.add("time", started, time.time() - started)
        return self._result(request, timeline, outcome, verdict, log=judged.log, frames=judged.frames)

    def close(self) -> None:
        self._judges.close()
        self._fork_server.close()

    def _find_working_sandbox(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Which GPUs a sandbox can hide, and what it has to leave out, for GPU memory to be shared with it.

        Drivers differ in whether they hand memory to another user, or across process namespaces.
        """
        task = Task(name="probe", source=PROBE_TASK)
        request = EvalRequest(task=task, source="", protocol=EvalProtocol())
        seen: list[str] = []
        others = self.device.others if "mounts" in self._fork_server.isolation else ()
        for hidden, without in sandboxes_for_cuda(others):
            self._hidden, self._without = hidden, without
            try:
                with closing(JudgeHandle(self._fork_server, request, self.device, self._sandbox())) as probe:
                    probe.admit()
            except (InfraError, UserError) as error:
                hiding = "hiding other GPUs, " if hidden else ""
                seen.append(f"{hiding}without {', '.join(without) or 'nothing'}: {error}")
            else:
                return hidden, without
        raise InfraError(f"no sandbox in which GPU memory can be shared: {'; '.join(seen)}")

    def _build(self, request: EvalRequest, timeline: Timeline) -> Built | NotBuilt:
        started = time.time()
        try:
            return self._builder.build(request)
        finally:
            timeline.add("compile", started, time.time() - started)

    def _child(self, built: Built, role: str = "measure") -> Child:
        return Child(self._fork_server, role, self._sandbox(built))

    def _measure(
        self,
        request: EvalRequest,
        built: Built,
        timeline: Timeline,
        child: Child,
        reservation: Reservation | None = None,
    ) -> Judged:
        """What `child` is found to do, on a CPU beside what further pairs of processes measure."""
        if self.device.is_cuda:
            return self._judge_one(request, built, timeline, child, reservation)
        each = replace(request, protocol=pairs.protocol_of_each(request.protocol))
        judged = self._judge_one(each, built, timeline, child, reservation)
        first = judged.outcome
        if not isinstance(first, Measured):
            return judged
        others: list[Pair] = []
        while len(others) < pairs.NUM_PAIRS - 1:
            found = self._another_pair(each, built, timeline)
            if isinstance(found, Judged) and found.hides_work:
                found = self._another_pair(each, built, timeline)
            if isinstance(found, Judged):
                return found
            others.append(found)
        return replace(judged, outcome=pairs.pooled(first, others))

    def _another_pair(self, request: EvalRequest, built: Built, timeline: Timeline) -> Pair | Judged:
        """What the kernel and the reference take in new processes, or what went wrong there."""
        judge = self._judges.of(request)
        with closing(self._child(built)) as child:
            reference = Child(self._fork_server, "measure", self._sandbox())
            answer = judge.time(request, child, built.setup, reference)
            if answer["pair"] is None:
                return self._judged(child, answer, timeline)
            self._note_spans(answer, timeline)
            return codec.decode(Pair, answer["pair"])

    def _judge_one(
        self,
        request: EvalRequest,
        built: Built,
        timeline: Timeline,
        child: Child,
        reservation: Reservation | None = None,
    ) -> Judged:
        def learned(_: Data) -> None:
            if reservation is not None:
                reservation.grow(self._need(request))

        judge = self._judges.of(request, learned)
        judged = self._judge(request, built, judge, child, timeline)
        if self.device.is_cuda and judged.lacked_memory and self._judges.make_all_room(request):
            with closing(self._child(built)) as another:
                warm_up([another], self.device.torch, built.setup, triton="triton" in request.source)
                judged = self._judge(request, built, judge, another, timeline)
        if not self.device.is_cuda and judged.hides_work:
            # How long calls take is decided once in each process.
            with closing(self._child(built)) as another:
                judged = self._judge(request, built, judge, another, timeline)
        self._judges.settle(judge)
        return judged

    def _judge(
        self, request: EvalRequest, built: Built, judge: JudgeHandle, child: Child, timeline: Timeline
    ) -> Judged:
        try:
            is_watched = self.device.is_cuda and request.protocol.precision == "fp32"
            seen = self._inspections.of(built) if is_watched else []
            answer = judge.judge(request, child, built.setup, seen)
        except NoMemory as error:
            if self._judges.make_all_room(request):
                raise InfraError(f"other tasks held the device's memory: {error}") from None
            raise
        return self._judged(child, answer, timeline)

    def _judged(self, child: Child, answer: dict[str, Any], timeline: Timeline) -> Judged:
        if answer["outcome"] is None:
            outcome: Outcome = child.crash()
        else:
            outcome = codec.decode(Outcome, answer["outcome"])
        child.close()
        self._note_spans(answer, timeline)
        return Judged(outcome=outcome, log=child.log, frames=answer["frames"])

    def _note_spans(self, answer: dict[str, Any], timeline: Timeline) -> None:
        for stage, started, seconds in answer["spans"]:
            timeline.add(stage, started, seconds)
        timeline.device_s += answer["device_s"]

    def _kernelbench(
        self, request: EvalRequest, built: Built, outcome: Outcome, timeline: Timeline
    ) -> KernelBenchVerdict:
        device, protocol = self.device, request.protocol
        if isinstance(outcome, CompileFailed | Crashed | TimedOut):
            return verdicts.kernelbench_failure(outcome, device.hardware, device.torch)
        job = {
            "op": "judge",
            "task_source": request.task.source,
            "source": request.source,
            "setup": built.setup,
            "device": device.torch,
            "threads": num_threads(),
            "protocol": codec.encode(protocol),
        }
        lease = self._lease if device.is_cuda else nullcontext()
        with self._kernelbench_slots, closing(self._child(built, "kernelbench")) as child:
            if device.is_cuda:
                warm_up([child], device.torch, built.setup, triton="triton" in request.source)
            channel = Channel(child.data, verdicts.REPLY_LIMIT_BYTES)
            try:
                fields, device_s = verdicts.converse(
                    channel, job, lease, held_s=protocol.timeout_s, waited_s=_KERNELBENCH_DRAWS_S
                )
            except verdicts.Late:
                late = TimedOut(reason="timed out", stage="time", limit_s=protocol.timeout_s)
                return verdicts.kernelbench_failure(late, device.hardware, device.torch)
            except (ChannelClosed, WireError):
                return verdicts.kernelbench_failure(child.crash(), device.hardware, device.torch)
        timeline.device_s += device_s
        return verdicts.kernelbench_from(fields)

    def _sandbox(self, built: Built | None = None, *, build_writable: bool = False) -> SandboxConfig:
        with self._serial_lock:
            self._serial += 1
            serial = self._serial
        available_bytes = self._budget.available_bytes
        memory_bytes = available_bytes // 2
        if not self.device.is_cuda:
            memory_bytes = min(available_bytes * 3 // 4, max(_CPU_MEMORY_BYTES, available_bytes // 8))
        return SandboxConfig(
            limits=Limits(memory_bytes=memory_bytes, address_space=not self.device.is_cuda),
            environ={
                **self._environ,
                "TORCH_EXTENSIONS_DIR": built.folder if built else str(SCRATCH),
                "OMP_NUM_THREADS": str(num_threads()),
                "KINETO_LOG_LEVEL": "99",
            },
            scratch_fallback=str(self._state_dir / "scratch" / f"{self.boot}-{serial}"),
            serial=os.getpid() + serial,
            build=built.folder if built else "",
            build_writable=build_writable,
            readable=built.readable if built else (),
            hidden=self._hidden,
            without=self._without,
        )

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
        return Result(
            outcome=outcome,
            feedback=feedback.for_outcome(outcome, frames, log, kernelbench),
            device=self.device.name,
            protocol=request.protocol.id,
            boot=self.boot,
            seconds=timeline.seconds(),
            device_s=timeline.device_s,
            spans=timeline.spans(),
            kernelbench=kernelbench,
            log=log,
        )
