"""One candidate before the strict judge: load, check, time, audit. The order of docs/evaluation.md."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch

from kbopt.core.types import (
    Audit,
    CompileFailed,
    Crashed,
    EvalProtocol,
    Measured,
    Outcome,
    Rejected,
    Roofline,
    Span,
    Speedup,
    Stage,
    TimedOut,
)
from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import (
    Refused,
    notes_on_form,
)
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.link import (
    CandidateDied,
    CandidateRaised,
    OutOfTime,
    SourceRejected,
)
from kbopt.evaluation.judge.products import arithmetic_of_kernel
from kbopt.evaluation.judge.reference import (
    Reference,
    TaskTooLarge,
)
from kbopt.evaluation.judge.timed import TimedModels
from kbopt.evaluation.judge.worker import LateOutput, Worker
from kbopt.evaluation.messages import Verdict
from kbopt.evaluation.timing import intervals, samples
from kbopt.evaluation.timing.pairs import Pair
from kbopt.evaluation.timing.schedule import Sessions
from kbopt.evaluation.transport.untrusted import CandidateForged

_MOST_SESSIONS = 3
_CORES_TOLERANCE = 1.15
_MOST_CORES = 1.6
"""Relative to the reference's: in between, a candidate is charged for the cores that it used."""
_MOST_KERNELS = 5
_MODEST_SHARE = 0.25
"""Of the device's free memory: a candidate that takes less is not to blame where the reference needs more."""
_COMPILER_ERRORS = ("CompilationError", "NotBuilt")
_EXTENSION_ERROR = "RuntimeError: Error building extension"


class Judgement:
    """Drives one candidate through the strict protocol. `run` or `time`, once.

    `start_worker` opens the candidate's worker; `reference_worker` runs the reference. `arithmetic` lists
    what the candidate's machine code was seen to multiply in, other than fp32.
    """

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        reference_worker: Worker,
        start_worker: Callable[[], Worker],
        rng: random.Random,
        arithmetic: Sequence[str] = (),
    ) -> None:
        self._reference = reference
        self._protocol = protocol
        self._start_worker = start_worker
        self._rng = rng
        self._calls = Calls(reference, admission, protocol, reference_worker, rng)
        self._checks = Checks(self._calls, reference, admission, rng, arithmetic)
        self._spans: list[Span] = []
        self._frames = ""
        self._pair: Pair | None = None
        self._stage: Stage = "check"
        self._free_bytes = reference.free_bytes
        self._on_cpu = reference.device.type == "cpu"

    def run(self, source: str, setup: str) -> Verdict:
        """The verdict; what the candidate does wrong is data, TaskError is the task's own fault."""
        return self._with_worker(lambda: self._judge(source, setup))

    def time(self, source: str, setup: str) -> Verdict:
        """The times of a candidate that `run` found to be right, in this pair of processes."""
        return self._with_worker(lambda: self._time_again(source, setup))

    def _with_worker(self, judge: Callable[[], Outcome | None]) -> Verdict:
        """The verdict by `judge`, for which the candidate's worker is there."""
        with self._span("check"):
            try:
                self._calls.worker = self._start_worker()
            except CandidateDied:
                return self._verdict(None)
        try:
            outcome = self._typed(judge)
        finally:
            self._calls.worker.close()
            self._calls.worker.link.close()
        return self._verdict(outcome)

    def _verdict(self, outcome: Outcome | None) -> Verdict:
        return Verdict(
            outcome=outcome,
            pair=self._pair,
            frames=self._frames,
            spans=tuple(self._spans),
            device_s=self._calls.device_s,
        )

    def _judge(self, source: str, setup: str) -> Outcome:
        with self._span("check"):
            sessions = self._sessions()
            self._calls.worker.build(source, setup)
            self._checks.check(self._protocol.trials)
            self._checks.probe_precision()
        with self._span("time"):
            session = self._time(sessions)
            latency = sessions.latency()
        with self._span("check"):
            self._checks.probe_after_other_calls()
            # Only now: a process in which a profiler ran launches kernels more slowly.
            audit = self._audit()
            audit = replace(audit, notes=(*audit.notes, *session.notes))
            audit = self._with_profile(audit)
            self._checks.require_allowed_arithmetic()
            return self._measured(audit, session, sessions.scatter_of(session), latency)

    def _time_again(self, source: str, setup: str) -> None:
        with self._span("time"):
            sessions = self._sessions()
            self._calls.worker.build(source, setup)
            self._checks.check_one(self._calls.draw())
            session = self._time(sessions)
        self._pair = Pair(
            kernel_ms=_rounded(session.kernel_ms),
            reference_ms=_rounded(session.reference_ms),
            native_ms=session.clocks.native_ms,
            wall_ms=session.clocks.wall_ms,
        )

    def _sessions(self) -> Sessions:
        """Calibrated before the candidate's code is loaded."""
        models = TimedModels(self._calls, self._checks, self._reference, self._rng)
        device, overhead = self._reference.device.type, self._calls.worker.overhead
        sessions = Sessions(models, device, self._protocol, overhead, self._rng)
        sessions.calibrate()
        return sessions

    def _typed(self, judge: Callable[[], Outcome | None]) -> Outcome | None:
        """What `judge` finds or raises as an outcome, None where the candidate's process died."""
        try:
            return judge()
        except Refused as refusal:
            return refusal.outcome
        except SourceRejected as error:
            return CompileFailed(reason=str(error))
        except CandidateRaised as error:
            self._frames = error.frames
            if error.kind in _COMPILER_ERRORS or str(error).startswith(_EXTENSION_ERROR):
                return CompileFailed(reason=str(error))
            return Crashed(reason=str(error), how=error.kind)
        except OutOfTime:
            limit_s = self._protocol.timeout_s
            reason = f"no answer within {limit_s:g} s of check and timing"
            return TimedOut(reason=reason, stage=self._stage, limit_s=limit_s)
        except CandidateForged as error:
            return Rejected(reason=f"the child's messages were forged: {error}", family="forged_verdict")
        except LateOutput:
            reason = "an output changed after the call was said to be done: work is put off"
            return Rejected(reason=reason, family="timing_mismatch")
        except torch.OutOfMemoryError as error:
            return self._without_memory(error)
        except CandidateDied:
            return None

    def _without_memory(self, error: torch.OutOfMemoryError) -> Outcome:
        """The device had no room left for the reference: whose fault is that?"""
        taken_gib = (self._free_bytes - self._reference.free_bytes) / 2**30
        if self._on_cpu or taken_gib < _MODEST_SHARE * self._free_bytes / 2**30:
            raise TaskTooLarge(
                "the reference and its float64 answer do not fit beside a candidate's outputs into the "
                f"device's memory: {error}. Make the task's inputs smaller or use a larger device"
            )
        reason = f"it takes {taken_gib:.1f} GiB of the device's memory, which leaves no room for its check"
        return Crashed(reason=reason, how="out of memory")

    @contextmanager
    def _span(self, stage: Stage) -> Iterator[None]:
        self._stage = stage
        started, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - clock
            self._spans.append(Span(stage=stage, start=started, seconds=seconds))

    def _audit(self) -> Audit:
        exchange = self._checks.check_one(self._calls.draw(), "audit")
        if exchange.seen is None:
            raise CandidateForged("no audit")
        torch_ops, custom = exchange.seen.torch_ops, exchange.seen.custom_kernel
        self._checks.arithmetic += exchange.seen.arithmetic
        if torch_ops and self._protocol.torch_ops == "forbid":
            reason = f"--torch-ops forbid, and it calls {', '.join(torch_ops[:10])}"
            raise Refused(Rejected(reason=reason, family="torch_ops"))
        notes = notes_on_form(exchange.outputs[0], self._calls.expected)
        if not custom:
            notes.append("No custom kernel: everything that wrote the outputs was PyTorch.")
        elif torch_ops and self._protocol.torch_ops == "warn":
            notes.append(f"Part of the work is PyTorch's: {', '.join(torch_ops[:10])}.")
        return Audit(custom_kernel=custom, torch_ops=torch_ops, notes=tuple(notes))

    def _time(self, sessions: Sessions) -> samples.Session:
        sessions.warm_up()
        self._calls.cores.clear()
        # Other work on the machine can make the clocks differ once; what is hidden differs every time.
        disagreed = 0.0
        while disagreed < _MOST_SESSIONS:
            session = sessions.run()
            if session.clocks_agree:
                return self._charge_for_cores(session)
            disagreed += 0.5 if session.is_busy else 1.0
        raise Refused(
            Rejected(
                reason=f"by its own clock a call takes {session.clocks.native_ms:.4g} ms, by the judge's "
                f"{session.clocks.wall_ms:.4g} ms: work is done where the timer does not look",
                family="timing_mismatch",
            )
        )

    def _with_profile(self, audit: Audit) -> Audit:
        """On a GPU, the kernels that a call spends its time in."""
        if self._on_cpu:
            return audit
        kernels = self._calls.worker.profile(self._calls.draw())[:_MOST_KERNELS]
        if not kernels:
            return audit
        total_us = sum(kernel.us for kernel in kernels) or 1.0
        self._checks.arithmetic += [line for kernel in kernels for line in arithmetic_of_kernel(kernel.name)]
        parts = [f"{k.name} {k.us / total_us:.0%} ({k.calls}x, {k.us:.4g} us)" for k in kernels]
        return replace(audit, notes=(*audit.notes, f"Kernels of a call: {'; '.join(parts)}."))

    def _charge_for_cores(self, session: samples.Session) -> samples.Session:
        """Both models get the same number of cores; more than that are no better kernel.

        Threads that overlap a little are charged for it, in their times. Helpers that keep cores busy of
        their own are refused.
        """
        threads = torch.get_num_threads()
        used = median(self._calls.cores) / threads
        if not self._on_cpu or used <= _CORES_TOLERANCE:
            return session
        if used > _MOST_CORES:
            reason = f"it keeps {used * threads:.1f} cores busy where the reference is given {threads}"
            raise Refused(Rejected(reason=reason, family="extra_threads"))
        return replace(session, kernel_ms=tuple(used * ms for ms in session.kernel_ms))

    def _measured(
        self,
        audit: Audit,
        session: samples.Session,
        scatter: intervals.Scatter,
        latency: samples.Latency | None,
    ) -> Measured:
        kernel_ms, reference_ms, clocks = session.kernel_ms, session.reference_ms, session.clocks
        draw = self._calls.draw()
        work = roofline.work_of(self._reference, draw)
        kernel = median(kernel_ms)
        if kernel < work.impossible_ms:
            raise Refused(
                Rejected(
                    reason=f"{kernel:.4g} ms a call is below the floor of {work.impossible_ms:.4g} ms that "
                    "moving the task's bytes takes",
                    family="implausible",
                )
            )
        notes = list(audit.notes)
        moved = intervals.drift(reference_ms)
        if not 0.8 < moved < 1.25:
            notes.append(f"The reference's time drifted by a factor of {moved:.2f} while measuring.")
        interval = intervals.ratio_interval(reference_ms, kernel_ms, self._rng, scatter)
        num, timed = len(kernel_ms), self._protocol.timed
        if num < timed and not self._on_cpu:
            notes.append(f"{num} timed calls instead of {timed}: enough for half a percent, or slow.")
        return Measured(
            kernel_ms=_rounded(kernel_ms),
            reference_ms=_rounded(reference_ms),
            speedup=median(reference_ms) / kernel,
            speedup_ci=interval,
            native_ms=clocks.native_ms,
            wall_ms=clocks.wall_ms,
            audit=Audit(custom_kernel=audit.custom_kernel, torch_ops=audit.torch_ops, notes=tuple(notes)),
            roofline=Roofline(
                size_bytes=work.size_bytes,
                operations=work.operations,
                floor_ms=work.floor_ms,
                share=min(1.0, work.floor_ms / kernel),
                reference_ops_ms=work.operations_ms,
            ),
            speedups=self._over_eager(session, interval, latency),
        )

    def _over_eager(
        self, session: samples.Session, interval: tuple[float, float], latency: samples.Latency | None
    ) -> tuple[Speedup, ...]:
        kernel_ms, reference_ms = median(session.kernel_ms), median(session.reference_ms)
        by_device = Speedup(
            baseline="eager",
            clock="device",
            baseline_ms=reference_ms,
            kernel_ms=kernel_ms,
            speedup=reference_ms / kernel_ms,
            interval=interval,
        )
        if latency is None:  # A CPU's caller waits for all of the work: both clocks are one.
            return by_device, replace(by_device, clock="latency")
        by_caller = Speedup(
            baseline="eager",
            clock="latency",
            baseline_ms=median(latency.reference_ms),
            kernel_ms=median(latency.kernel_ms),
            speedup=median(latency.reference_ms) / median(latency.kernel_ms),
            interval=intervals.ratio_interval(
                latency.reference_ms, latency.kernel_ms, self._rng, intervals.LATENCY_SCATTER
            ),
        )
        return by_device, by_caller


def _rounded(times_ms: Sequence[float]) -> tuple[float, ...]:
    """To a nanosecond, which is what the clocks count in."""
    return tuple(round(ms, 6) for ms in times_ms)
