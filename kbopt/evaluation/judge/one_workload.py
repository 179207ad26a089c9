"""Judges a candidate on one workload of its task: checks, timing, audit and the result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch

from kbopt.core.outcomes import Audit, Measured, Rejected, Roofline, Speedup
from kbopt.core.protocol import Clock, EvalProtocol
from kbopt.evaluation.judge import roofline
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import Refused, notes_on_form
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.parameters import OWN_PARAMETERS, keeps_own
from kbopt.evaluation.judge.probes import SHARES
from kbopt.evaluation.judge.products import arithmetic_of_kernel
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.timed import TimedModels
from kbopt.evaluation.judge.worker import Worker
from kbopt.evaluation.timing import intervals, samples
from kbopt.evaluation.timing.interleaving import Steps
from kbopt.evaluation.timing.schedule import Sessions
from kbopt.evaluation.timing.workloads import share_of
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import KernelTime

_MOST_SESSIONS = 3
"""Sessions on a GPU until clocks that disagree reject a candidate (decision 22)."""
_CORES_TOLERANCE = 1.15
"""Busy cores relative to the reference's threads. More are charged to the candidate's times (decision 22)."""
_MOST_CORES = 1.6
"""Busy cores relative to the reference's threads. More are rejected."""
_MOST_KERNELS = 5
"""Kernels of a call that the audit's note names."""
_NOT_SHARED = (
    "It returns memory that CUDA does not share between processes, such as that of cudaMallocAsync. A copy "
    "of it is timed with each call; an output made by torch.empty needs none."
)


class OnWorkload:
    """One of the `num_workloads` workloads of a judgement, with its `checks`.

    Call `calibrate` first, before the candidate's code is loaded. Methods raise Refused if it fails.
    """

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        reference_worker: Worker,
        rng: random.Random,
        arithmetic: Sequence[str],
        num_workloads: int,
    ) -> None:
        self._reference = reference
        self._protocol = protocol
        self._rng = rng
        self._num_workloads = num_workloads
        self._calls = Calls(reference, admission, protocol, reference_worker, rng)
        self.checks = Checks(self._calls, reference, admission, rng, arithmetic)
        self._on_cpu = reference.device.type == "cpu"
        self._sessions: Sessions
        self._session: samples.Session
        self._latency: samples.Times | None = None
        self._keeps_own_parameters = False

    @property
    def where(self) -> str:
        """The start of messages about the workload, "" if the task has only one."""
        return self._reference.workload.where

    @property
    def device_s(self) -> float:
        return self._calls.device_s

    def calibrate(self, worker: Worker) -> None:
        """Measure what timing needs to know before the candidate's code is loaded into its `worker`."""
        self._calls.worker = worker
        models = TimedModels(self._calls, self.checks, self._reference, self._rng)
        device = self._reference.device.type
        self._sessions = Sessions(models, device, self._protocol, self._rng, self._num_workloads)
        self._sessions.calibrate()

    def settle_parameters(self) -> None:
        """Decide whether the candidate is judged with the reference's parameters, for all workloads."""
        self._keeps_own_parameters = keeps_own(self._calls, self.checks, self._reference)

    def check(self) -> None:
        """Check that the answers are right, and at the task's precision.

        Each of many workloads gets a part of the probes that all tasks have, as it gets a part of the checks.
        """
        self.checks.check(self._protocol.trials)
        num_shares = max(1, round(share_of(self._num_workloads) * len(SHARES)))
        self.checks.probe_precision(self._rng.sample(SHARES, num_shares))

    def time(self) -> Steps[None]:
        """Run sessions until the clocks agree, and then time the latency. The steps can be interleaved."""
        self._sessions.warm_up()
        self._calls.cores.clear()
        # Other work on the machine can make the clocks differ once. Hidden work makes them differ every time.
        for _ in range(_MOST_SESSIONS):
            session = yield from self._sessions.run()
            if session.clocks_agree:
                self._session = self._charge_for_cores(session)
                self._latency = yield from self._sessions.latency()
                return
        reason = (
            f"by its own clock a call takes {session.clocks.native_ms:.4g} ms, by the judge's "
            f"{session.clocks.wall_ms:.4g} ms: work is done where the timer does not look"
        )
        raise Refused(Rejected(reason=reason, family="timing_mismatch"))

    def pair(self) -> samples.Times:
        session = self._session
        return samples.Times(
            kernel_ms=_rounded(session.kernel_ms), reference_ms=_rounded(session.reference_ms)
        )

    def conclude(self, failed_allocations: int) -> Measured:
        """Audit and profile the candidate, and return the result. `failed_allocations` get a note.

        This comes after the timing, because a process in which a profiler ran launches kernels more slowly.
        """
        self.checks.probe_after_other_calls()
        audit = self._audit()
        lacking = (
            f"PyTorch found no room on the device {failed_allocations} times, and went on: cuDNN may have "
            "chosen another algorithm than it would with more memory.",
        )
        audit = replace(
            audit, notes=(*audit.notes, *self._session.notes, *(lacking if failed_allocations else ()))
        )
        audit = self._with_profile(audit)
        self.checks.require_allowed_arithmetic()
        return self._measured(audit)

    def _audit(self) -> Audit:
        exchange = self.checks.check_one(self._calls.draw(), "audit")
        if exchange.seen is None:
            raise CandidateForged("no audit")
        torch_ops, custom = exchange.seen.torch_ops, exchange.seen.custom_kernel
        self.checks.arithmetic += exchange.seen.arithmetic
        if torch_ops and self._protocol.torch_ops == "forbid":
            reason = f"--torch-ops forbid, and it calls {', '.join(torch_ops[:10])}"
            raise Refused(Rejected(reason=reason, family="torch_ops"))
        notes = notes_on_form(exchange.outputs[0], self._calls.expected, self._reference.name_of)
        if exchange.seen.copies_outputs:
            notes.append(_NOT_SHARED)
        if self._keeps_own_parameters:
            notes.append(OWN_PARAMETERS)
        if not custom:
            notes.append("No custom kernel: everything that wrote the outputs was PyTorch.")
        elif torch_ops and self._protocol.torch_ops == "warn":
            notes.append(f"Part of the work is PyTorch's: {', '.join(torch_ops[:10])}.")
        return Audit(custom_kernel=custom, torch_ops=torch_ops, notes=tuple(notes))

    def _with_profile(self, audit: Audit) -> Audit:
        """Add a note on the kernels that a call on a GPU spends its time in."""
        if self._on_cpu:
            return audit
        kernels = self._calls.worker.profile(self._calls.draw())[:_MOST_KERNELS]
        self.checks.arithmetic += [line for kernel in kernels for line in arithmetic_of_kernel(kernel.name)]
        return replace(audit, notes=(*audit.notes, *kernels_notes(kernels)))

    def _charge_for_cores(self, session: samples.Session) -> samples.Session:
        """Lengthen the candidate's times if it kept more cores busy than the reference's threads may.

        Both models get the same number of threads, and using more cores makes no better kernel. Threads that
        overlap a little are charged for that. Helpers that keep further cores busy are refused.
        """
        threads = torch.get_num_threads()
        used = median(self._calls.cores) / threads
        if not self._on_cpu or used <= _CORES_TOLERANCE:
            return session
        if used > _MOST_CORES:
            reason = f"it keeps {used * threads:.1f} cores busy where the reference is given {threads}"
            raise Refused(Rejected(reason=reason, family="extra_threads"))
        if threads == 1:  # Processor time is charged already.
            return session
        return replace(session, kernel_ms=tuple(used * ms for ms in session.kernel_ms))

    def _measured(self, audit: Audit) -> Measured:
        session = self._session
        kernel_ms, reference_ms = session.kernel_ms, session.reference_ms
        draw = self._calls.draw()
        work = roofline.work_of(self._reference, draw)
        limits, kernel = work.limits, median(kernel_ms)
        if kernel < work.impossible_ms:
            floor = f"the floor of {work.impossible_ms:.4g} ms that moving the task's bytes takes"
            reason = f"{kernel:.4g} ms a call is below {floor}"
            raise Refused(Rejected(reason=reason, family="implausible"))
        notes = list(audit.notes)
        moved = intervals.drift(reference_ms)
        if not 0.8 < moved < 1.25:
            notes.append(f"The reference's time drifted by a factor of {moved:.2f} while measuring.")
        scatters = self._sessions.scatters_of(session)
        interval = intervals.ratio_interval(reference_ms, kernel_ms, self._rng, *scatters)
        if not self._on_cpu:
            notes += session.notes_on_number(self._protocol.timed)
        return Measured(
            kernel_ms=_rounded(kernel_ms),
            reference_ms=_rounded(reference_ms),
            speedup=session.speedup,
            speedup_ci=interval,
            native_ms=None if self._on_cpu else session.clocks.native_ms,
            wall_ms=session.clocks.wall_ms,
            audit=replace(audit, notes=tuple(notes)),
            roofline=Roofline(
                size_bytes=limits.size_bytes,
                operations=limits.operations,
                floor_ms=limits.floor_ms,
                share=min(1.0, limits.floor_ms / kernel),
                reference_ops_ms=limits.operations_ms,
            ),
            speedups=self._over_eager(interval),
        )

    def _over_eager(self, interval: tuple[float, float]) -> tuple[Speedup, ...]:
        by_device = _speedup("device", self._session, interval)
        latency = self._latency
        if latency is None:  # The caller on a CPU waits for all of the work, so both clocks are the same.
            return by_device, replace(by_device, clock="latency")
        by_caller = intervals.ratio_interval(
            latency.reference_ms, latency.kernel_ms, self._rng, intervals.LATENCY_SCATTER
        )
        return by_device, _speedup("latency", latency, by_caller)


def kernels_notes(kernels: Sequence[KernelTime]) -> list[str]:
    """Return a sentence on the kernels of a call, as `audit.kernel_times` saw them, if there are any."""
    if not kernels:
        return []
    total_us = sum(kernel.us for kernel in kernels) or 1.0
    parts = [f"{k.name} {k.us / total_us:.0%} ({k.calls}x, {k.us:.4g} us)" for k in kernels]
    return [
        f"Kernels of a call: {'; '.join(parts)}. These times are of one call with a warm L2: compare them "
        "with each other alone, not with timed calls or other candidates."
    ]


def _speedup(clock: Clock, times: samples.Times, interval: tuple[float, float]) -> Speedup:
    kernel_ms, reference_ms = median(times.kernel_ms), median(times.reference_ms)
    return Speedup(
        baseline="eager",
        clock=clock,
        baseline_ms=reference_ms,
        kernel_ms=kernel_ms,
        speedup=times.speedup,
        interval=interval,
    )


def _rounded(times_ms: Sequence[float]) -> tuple[float, ...]:
    """Round to a nanosecond, in which the clocks count."""
    return tuple(round(ms, 6) for ms in times_ms)
