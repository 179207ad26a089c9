"""Judges one candidate on all workloads that count, from its source to its verdict.

docs/evaluation.md has the steps, in the same order.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from kbopt.core.evaluations import Span
from kbopt.core.outcomes import CompileFailed, Crashed, Measured, Outcome, Rejected, Stage, TimedOut
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import Refused
from kbopt.evaluation.judge.kinds import KINDS, Kind
from kbopt.evaluation.judge.link import CandidateDied, CandidateRaised, OutOfTime, SourceRejected
from kbopt.evaluation.judge.one_workload import OnWorkload
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.task_code import TaskTooLarge
from kbopt.evaluation.judge.worker import LateOutput, Worker
from kbopt.evaluation.messages import Verdict
from kbopt.evaluation.timing.interleaving import interleaved
from kbopt.evaluation.timing.samples import Times
from kbopt.evaluation.timing.workloads import protocol_of_each
from kbopt.evaluation.transport.untrusted import CandidateForged

_MODEST_SHARE = 0.25
"""Share of the device's free memory. A candidate that takes less is not to blame if the reference runs out of
memory."""
_FEWEST_KINDS = 4
"""Kinds of values that are tried however long they take."""
_ENOUGH_KINDS_S = 1.0
"""Seconds after which no further kind is begun, unless the next limit is longer: of this process's time on a
CPU, and of wall time on a GPU. The float64 answer of one of the largest tasks takes a second."""
_ENOUGH_KINDS_SHARE = 2.0
"""The same limit, as a multiple of the time of the checks. Ten kinds need about as many answers as the usual
five checks do twice."""
_COMPILER_ERRORS = ("CompilationError", "NotBuilt")
"""Names of exceptions that mean `compile_failed`: Triton's, and that of leanbuild."""
_EXTENSION_ERROR = "RuntimeError: Error building extension"
"""How the message of torch.utils.cpp_extension begins when a build fails."""


class Judgement:
    """Drives one candidate through the strict protocol. Call `run` or `time`, and only once.

    `admitted` has the reference on each of the judged workloads. `start_worker` opens the candidate's worker;
    `reference_worker` runs the reference. `arithmetic` lists the arithmetic other than fp32 that was seen in
    the candidate's machine code. `entered` is called when the check ends and when the timing does.
    """

    def __init__(
        self,
        admitted: Sequence[tuple[Reference, Admission]],
        protocol: EvalProtocol,
        reference_worker: Worker,
        start_worker: Callable[[], Worker],
        rng: random.Random,
        arithmetic: Sequence[str],
        entered: Callable[[Stage], None],
    ) -> None:
        self._protocol = protocol
        self._entered = entered
        self._reference_worker = reference_worker
        self._start_worker = start_worker
        self._rng = rng
        self._reference, _ = admitted[0]
        # On a CPU others may have the core, so that a second is soon over.
        self._spent_s = time.process_time if self._reference.device.type == "cpu" else time.perf_counter
        each = protocol_of_each(protocol, len(admitted))
        self._workloads = [
            OnWorkload(reference, admission, each, reference_worker, rng, arithmetic, len(admitted))
            for reference, admission in admitted
        ]
        self._spans: list[Span] = []
        self._frames = ""
        self._where = ""
        self._measured: tuple[Measured, ...] = ()
        self._failed_allocations = 0
        self._pairs: tuple[Times, ...] = ()
        self._untried: tuple[str, ...] = ()
        self._stage: Stage = "check"
        self._free_bytes = self._reference.free_bytes

    def run(self, source: str, setup: str) -> Verdict:
        """Return the verdict. What the candidate does wrong is an outcome. Raises TaskError for faults of the
        task.
        """
        return self._with_worker(lambda worker: self._judge(worker, source, setup))

    def time(self, source: str, setup: str) -> Verdict:
        """Do the same in another pair of processes, and return its times too.

        All of it is done again, because a source can tell from its first calls that it is not judged, and
        compute something else in the pairs that are timed alone.
        """

        def judge(worker: Worker) -> None:
            self._judge(worker, source, setup)
            self._pairs = tuple(workload.pair() for workload in self._workloads)

        return self._with_worker(judge)

    def _with_worker(self, judge: Callable[[Worker], None]) -> Verdict:
        """Start the candidate's worker, have `judge` use it, and return the verdict."""
        with self._span("check"):
            try:
                worker = self._start_worker()
            except CandidateDied:
                return self._verdict(None)
        try:
            outcome = self._typed(lambda: judge(worker))
        finally:
            worker.close()
            worker.link.close()
        return self._verdict(outcome)

    def _verdict(self, outcome: Outcome | None) -> Verdict:
        return Verdict(
            outcome=outcome,
            measured=self._measured,
            failed_allocations=self._failed_allocations,
            pairs=self._pairs,
            untried=self._untried,
            frames=self._frames,
            spans=tuple(self._spans),
            device_s=sum(workload.device_s for workload in self._workloads),
        )

    def _judge(self, worker: Worker, source: str, setup: str) -> None:
        with self._span("check"):
            self._load(worker, source, setup)
            started = self._spent_s()
            for workload in self._each():
                workload.check()
            self._try_values(checks_s=self._spent_s() - started)
        with self._span("time"):
            self._time()
        with self._span("check"):
            self._failed_allocations = sum(
                one.failed_allocations() for one in (worker, self._reference_worker)
            )
            self._untried = tuple(kind.name for kind in self._takes if not self._has_tried(kind))
            self._measured = tuple(workload.conclude(self._failed_allocations) for workload in self._each())

    def _try_values(self, *, checks_s: float) -> None:
        """Try each kind of values, on a random workload that takes it, as far as the time allows.

        Some kinds are also tried among the timed calls.
        """
        takes, kinds = self._takes, list(self._takes)
        enough_s = max(_ENOUGH_KINDS_S, _ENOUGH_KINDS_SHARE * checks_s)
        started = self._spent_s()
        for number, kind in enumerate(self._rng.sample(kinds, len(kinds))):
            if number >= _FEWEST_KINDS and self._spent_s() - started > enough_s:
                return
            for _ in range(kind.tries):
                workload = self._rng.choice(takes[kind])
                with self._on(workload):
                    workload.checks.try_kind(kind)

    @property
    def _takes(self) -> dict[Kind, list[OnWorkload]]:
        """The workloads that take each kind of values, for kinds that one of them takes."""
        takes = {kind: [w for w in self._workloads if kind in w.checks.kinds] for kind in KINDS}
        return {kind: workloads for kind, workloads in takes.items() if workloads}

    def _has_tried(self, kind: Kind) -> bool:
        return any(kind.name in workload.checks.tried for workload in self._workloads)

    def _load(self, worker: Worker, source: str, setup: str) -> None:
        for workload in self._workloads:
            workload.calibrate(worker)
        worker.build(source, setup)
        with self._on(self._workloads[0]):
            self._workloads[0].settle_parameters()

    def _time(self) -> None:
        """Time all workloads in one process. Which of them is next is random, so that no path of a kernel is
        only checked or only timed.
        """
        sessions = [workload.time() for workload in self._workloads]
        interleaved(sessions, self._rng, lambda number: self._on(self._workloads[number]))

    def _each(self) -> Iterator[OnWorkload]:
        """Yield one workload after the other. Messages about failures name the current one."""
        for workload in self._workloads:
            with self._on(workload):
                yield workload

    @contextmanager
    def _on(self, workload: OnWorkload) -> Iterator[None]:
        """Have messages about what is raised inside name this workload."""
        self._where = workload.where
        yield
        self._where = ""

    def _typed(self, judge: Callable[[], None]) -> Outcome | None:
        """Return what `judge` raises as an outcome. None if it raises nothing, or if the worker died."""
        try:
            judge()
        except Refused as refusal:
            outcome = refusal.outcome
            if isinstance(outcome, Measured):
                raise TypeError("what was measured is not refused") from refusal
            return replace(outcome, reason=f"{self._where}{outcome.reason}")
        except SourceRejected as error:
            return CompileFailed(reason=str(error))
        except CandidateRaised as error:
            self._frames = error.frames
            if error.kind in _COMPILER_ERRORS or str(error).startswith(_EXTENSION_ERROR):
                return CompileFailed(reason=str(error))
            return Crashed(reason=f"{self._where}{error}", how=error.kind)
        except OutOfTime:
            limit_s = self._protocol.timeout_s
            reason = f"{self._where}no answer within {limit_s:g} s of check and timing"
            return TimedOut(reason=reason, stage=self._stage, limit_s=limit_s)
        except CandidateForged as error:
            return Rejected(reason=f"the child's messages were forged: {error}", family="forged_verdict")
        except LateOutput:
            reason = f"{self._where}an output changed after the call was said to be done: work is put off"
            return Rejected(reason=reason, family="timing_mismatch")
        except torch.OutOfMemoryError as error:
            return self._without_memory(error)
        except CandidateDied:
            return None
        return None

    def _without_memory(self, error: torch.OutOfMemoryError) -> Outcome:
        """Return the outcome if the candidate took the memory that the reference lacked. Raises TaskTooLarge
        if not.
        """
        traceback.print_exception(error)  # The service's log then says what had no room.
        taken_gib = (self._free_bytes - self._reference.free_bytes) / 2**30
        on_cpu = self._reference.device.type == "cpu"
        if on_cpu or taken_gib < _MODEST_SHARE * self._free_bytes / 2**30:
            raise TaskTooLarge(
                f"{self._where}the reference and its float64 answer do not fit beside a candidate's outputs "
                f"into the device's memory: {error}. Make the task's inputs smaller or use a larger device"
            )
        # In these words the supervisor sees that other tasks may have held the memory, and tries again.
        reason = f"out of memory: it takes {taken_gib:.1f} GiB of the device's, and its check has no room"
        return Crashed(reason=f"{self._where}{reason}", how="out of memory")

    @contextmanager
    def _span(self, stage: Stage) -> Iterator[None]:
        if stage != self._stage:
            self._entered(stage)
        self._stage = stage
        started, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - clock
            self._spans.append(Span(stage=stage, start=started, seconds=seconds))
