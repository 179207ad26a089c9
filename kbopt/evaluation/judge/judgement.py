"""One candidate before the strict judge: load, check, time, audit. The order of docs/evaluation.md."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    Speedup,
    Stage,
    TimedOut,
    WrongAnswer,
)
from kbopt.evaluation.judge import compare, precision, roofline, values
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import (
    Refused,
    notes_on_form,
    require_form,
    require_separate,
    require_unchanged,
)
from kbopt.evaluation.judge.link import (
    CandidateDied,
    CandidateRaised,
    OutOfTime,
    SourceRejected,
)
from kbopt.evaluation.judge.precision import Probe, Sensitive, arithmetic_of_kernel
from kbopt.evaluation.judge.reference import (
    Draw,
    Output,
    Reference,
    ReferenceWorkerDied,
    TaskError,
    TaskTooLarge,
)
from kbopt.evaluation.judge.worker import Exchange, LateOutput, Worker
from kbopt.evaluation.sandbox.memory import is_out_of_memory
from kbopt.evaluation.timing import samples
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
_CALLS_BEFORE = (3, 12)
_PRECISION_SHARE = 0.4
"""Of the timed calls that are checked: their float64 answers take as long as several calls."""
_CHECKED_LATENCIES = 0.4
_NEARLY_RIGHT = 0.01
"""Relative errors up to here are those of a lower precision; beyond, the answer is simply wrong."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Of `run` the `outcome`, of `time` a `pair` unless something went wrong. Neither is there where the
    candidate's process died: the supervisor knows how.
    """

    outcome: Outcome | None = None
    pair: Pair | None = None
    frames: str = ""
    spans: list[tuple[Stage, float, float]] = field(default_factory=list)
    device_s: float = 0.0


class Judgement:
    """Drives one candidate through the strict protocol. `run` or `time`, once.

    `seat` starts to play the candidate's child; `reference_worker` plays the reference. `arithmetic` lists
    what the candidate's machine code was seen to multiply in, other than fp32.
    """

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        reference_worker: Worker,
        seat: Callable[[], Worker],
        rng: random.Random,
        arithmetic: Sequence[str] = (),
    ) -> None:
        self._reference = reference
        self._admission = admission
        self._protocol = protocol
        self._reference_worker = reference_worker
        self._seat = seat
        self._rng = rng
        self._verdict = Verdict()
        self._stage: Stage = "check"
        self._expected = self._own_answer(self.draw())
        self._own_errors = admission.sensitivity.tf32_errors or (0.0,) * len(self._expected.tensors)
        self._free_bytes = reference.free_bytes
        self._cores: list[float] = []
        self._arithmetic = list(arithmetic)
        self._shows_fp32 = False
        probes = admission.sensitivity.probes
        self._dense = next((s for s in probes if s.probe == precision.DENSE), None)
        self._on_cpu = reference.device.type == "cpu"
        self._worker: Worker

    def run(self, source: str, setup: str) -> Verdict:
        """The verdict; what the candidate does wrong is data, TaskError is the task's own fault."""
        return self._seated(lambda: self._judge(source, setup))

    def time(self, source: str, setup: str) -> Verdict:
        """The times of a candidate that `run` found to be right, in this pair of processes."""
        return self._seated(lambda: self._time_again(source, setup))

    def _seated(self, judge: Callable[[], Outcome | None]) -> Verdict:
        """The verdict by `judge`, with the candidate's child while it lasts."""
        verdict = self._verdict
        with self._span("check"):
            try:
                self._worker = self._seat()
            except CandidateDied:
                return verdict
        try:
            verdict.outcome = self._typed(judge)
        finally:
            self._worker.close()
            self._worker.link.close()
        return verdict

    def _judge(self, source: str, setup: str) -> Outcome:
        with self._span("check"):
            sessions = self._sessions()
            self._worker.build(source, setup)
            self._check()
            self._probe_precision()
        with self._span("time"):
            session = self._time(sessions)
            latency = sessions.latency()
        with self._span("check"):
            self._probe_after_other_calls()
            # Only now: a process in which a profiler ran launches kernels more slowly.
            audit = self._audit()
            audit = replace(audit, notes=(*audit.notes, *session.notes))
            audit = self._with_profile(audit)
            self._require_allowed_arithmetic()
            return self._measured(audit, session, sessions.scatter_of(session), latency)

    def _time_again(self, source: str, setup: str) -> None:
        with self._span("time"):
            sessions = self._sessions()
            self._worker.build(source, setup)
            self._check_one(self.draw())
            session = self._time(sessions)
        self._verdict.pair = Pair(
            kernel_ms=_rounded(session.kernel_ms),
            reference_ms=_rounded(session.reference_ms),
            native_ms=session.clocks.native_ms,
            wall_ms=session.clocks.wall_ms,
        )

    def _sessions(self) -> Sessions:
        """Calibrated before the candidate's code is loaded."""
        device, overhead = self._reference.device.type, self._worker.overhead
        sessions = Sessions(self, device, self._protocol, overhead, self._rng)
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
            self._verdict.frames = error.frames
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
            self._verdict.spans.append((stage, started, time.perf_counter() - clock))

    def draw(self) -> Draw:
        return self._reference.draw(self._rng.getrandbits(62))

    def cached_ms(self) -> float:
        return roofline.cached_ms(self._reference)

    def _check(self) -> None:
        for _ in range(self._protocol.trials):
            self._check_one(self.draw())

    def _check_one(self, draw: Draw, operation: str = "run") -> Exchange:
        """One call, compared with float64."""
        exact = self._exact_answer(draw)
        own = self._own_answer(draw)
        errors = compare.largest_errors(own.tensors, exact.tensors)
        self._own_errors = tuple(map(max, self._own_errors, errors))
        exchange, outputs = self._call(operation, [draw], [0])
        candidate = compare.measure_error(outputs[0], exact.tensors)
        downgrade = self._find_downgrade(
            candidate, compare.measure_error(own.tensors, exact.tensors), self._dense
        )
        if downgrade is not None:
            if compare.describe_bias(outputs[0], exact.tensors):
                self._require_right(outputs[0], exact, own, draw)
            self._probe_precision()  # Where most inputs are zero, a guess is no longer nearly right.
            raise downgrade
        self._require_right(outputs[0], exact, own, draw)
        return exchange

    def _own_answer(self, draw: Draw) -> Output:
        """What the reference itself gives, on a copy of the inputs so that it cannot change them."""
        with self._device_busy():
            return self._reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))

    def _exact_answer(self, draw: Draw) -> Output:
        with self._device_busy():
            return self._reference.run_exact(draw)

    @contextmanager
    def _device_busy(self) -> Iterator[None]:
        self._reference.synchronize()
        started = time.perf_counter()
        yield
        self._reference.synchronize()
        self._verdict.device_s += time.perf_counter() - started

    def _require_right(self, got: list[torch.Tensor], exact: Output, own: Output, draw: Draw) -> None:
        mismatch = compare.find_mismatch(
            got,
            exact.tensors,
            own.tensors,
            self._admission.tolerance,
            self._own_errors,
            lambda: self._reference.nearby(draw),
        )
        if mismatch is not None:
            bias = compare.describe_bias(got, exact.tensors)
            reason = f"{bias}: {mismatch}" if bias else str(mismatch)
            raise Refused(WrongAnswer(reason=f"{reason}{self._misfit_note}"))

    @property
    def _misfit_note(self) -> str:
        misfits = self._worker.misfits
        if not misfits:
            return ""
        return (
            f". Its parameters fit the reference's in part ({misfits}), so that the seed alone filled "
            f"them: with "
            "the reference's names and shapes they would be copied in"
        )

    def _find_downgrade(
        self, candidate: compare.Error, reference: compare.Error, sensitive: Sensitive | None = None
    ) -> Refused | None:
        """What to raise where an answer errs as only one of a lower precision does, unless it is a guess;
        `sensitive` where that shows best.
        """
        name = self._reference.precision
        if not self._reference.has_exact or candidate.rms > max(_NEARLY_RIGHT, 16 * reference.rms):
            return None
        if sensitive is None:
            # Where TF32 may be used, its error is what only the sensitive probes measure.
            is_lower = not self._admission.sensitivity.may_use_tf32 and compare.is_downgrade(
                candidate, reference, name
            )
        else:
            is_lower = sensitive.refuses(candidate, reference)
            self._shows_fp32 = self._shows_fp32 or sensitive.shows_fp32(candidate, reference)
        if not is_lower:
            return None
        where = f" on {sensitive.probe.name}" if sensitive else ""
        own = "TF32" if sensitive and sensitive.tf32_rms else name
        usual = max(reference.rms, sensitive.tf32_rms if sensitive else 0.0)
        return Refused(
            Rejected(
                reason=f"its relative error against float64{where} is {candidate.rms:.2g} where {own} makes "
                f"{usual:.2g}: it computes at a lower precision than the task's",
                family="precision_downgrade",
            )
        )

    def _probe_precision(self) -> None:
        """Inputs and parameters on which a long sum, or what follows the products, hides no rounding."""
        if not self._reference.has_exact:
            return
        downgrade: Refused | None = None
        for share in precision.SHARES:
            found = self._probe(Probe(name="inputs of which most elements are zero", share=share), None)
            downgrade = downgrade or found
        for sensitive in self._admission.sensitivity.probes:
            if sensitive.probe.changes_parameters:
                downgrade = downgrade or self._probe_with_parameters(sensitive)
            elif sensitive.probe != precision.DENSE:
                downgrade = downgrade or self._probe(sensitive.probe, sensitive)
        if downgrade is not None:
            raise downgrade

    def _probe_after_other_calls(self) -> None:
        """The probes with other parameters once more, among calls with its own inputs: no other model takes
        them, so that they cannot travel among the timed calls.
        """
        for sensitive in self._admission.sensitivity.probes:
            if sensitive.probe.changes_parameters:
                found = self._probe_with_parameters(sensitive, self._rng.randint(*_CALLS_BEFORE))
                if found is not None:
                    raise found

    def _probe_with_parameters(self, sensitive: Sensitive, calls_before: int = 0) -> Refused | None:
        """On a model of its own, which takes the probe's parameters. Says nothing of one that does not, or is
        then wrong: what it made of them in its constructor may be those of the task.
        """
        if not self._worker.takes_weights:
            return None
        reference, worker = self._reference, self._worker
        kept = {name: tensor.clone() for name, tensor in reference.parameters().items()}
        operands = self._admission.sensitivity.operands
        try:
            precision.set_parameters(reference, sensitive.probe.parameters(reference, operands))
            worker.construct(reference.parameters())
            for _ in range(calls_before):
                self._call("run", [self.draw()], [])
            found = self._probe(sensitive.probe, sensitive)
        finally:
            precision.set_parameters(reference, kept)
        worker.construct(kept)
        return found

    def _probe(self, probe: Probe, sensitive: Sensitive | None) -> Refused | None:
        """What to raise for the precision of one answer; raises Refused for one that is wrong."""
        draw = probe.inputs(self.draw())
        exact = self._exact_answer(draw)
        own = self._own_answer(draw)
        if not all(map(compare.is_finite, own.tensors)):
            return None
        _, outputs = self._call("run", [draw], [0])
        candidate = compare.measure_error(outputs[0], exact.tensors)
        reference = compare.measure_error(own.tensors, exact.tensors)
        if probe.changes_parameters or candidate.rms <= max(_NEARLY_RIGHT, 16 * reference.rms):
            return self._find_downgrade(candidate, reference, sensitive)
        mismatch = compare.find_mismatch(outputs[0], exact.tensors, own.tensors, self._admission.tolerance)
        found = mismatch or f"its relative error is {candidate.rms:.2g}"
        raise Refused(WrongAnswer(reason=f"with {probe.name}: {found}"))

    def travelling_probe(self, number: int) -> None:
        """One call that a candidate cannot tell from a timed one: on values that it may not take for granted,
        or, for every other number, on a few short sums, which show its precision. Raises Refused.
        """
        if number % 2 or not self._travels_with_short_sums():
            self._travel_shifted()

    def _travel_shifted(self) -> None:
        moves = not any(map(compare.counts_in_steps, self._expected.tensors))
        draw = values.shifted(self.draw(), self._rng, moves=moves)
        own = self._own_answer_or_none(draw)
        if own is None or not all(map(compare.is_finite, own.tensors)):
            return  # Values that the task's contract excludes.
        exact = self._exact_answer(draw)
        _, outputs = self._call("run", [draw], [0])
        mismatch = compare.find_mismatch(
            outputs[0],
            exact.tensors,
            own.tensors,
            self._admission.tolerance,
            nearby=lambda: self._reference.nearby(draw),
        )
        if mismatch is not None:
            reason = f"on inputs of another distribution, within the range of the task's own: {mismatch}"
            raise Refused(WrongAnswer(reason=reason))

    def _own_answer_or_none(self, draw: Draw) -> Output | None:
        try:
            return self._own_answer(draw)
        except TaskError:
            return None

    def _travels_with_short_sums(self) -> bool:
        """Whether there was such a probe: one that changes only a part of the output, which then shows what
        the sums of the rest hide.
        """
        reference, sensitivity = self._reference, self._admission.sensitivity
        if not reference.has_exact or (sensitivity.may_use_tf32 and sensitivity.local is None):
            return False
        share = min(precision.SHARES) if sensitivity.local is None else sensitivity.local.share
        found = precision.find_local(reference, self.draw(), share, self._rng)
        if found is None:
            return False
        draw, parts = found
        exact = self._exact_answer(draw)
        own = self._own_answer(draw)
        if not all(map(compare.is_finite, own.tensors)):
            return False
        _, (outputs,) = self._call("run", [draw], [0])
        # Apart from the others, whose long sums are so much larger that their rounding would excuse anything.
        got, want, mine = map(parts.of, (outputs, exact.tensors, own.tensors))
        candidate, usual = compare.measure_error(got, want), compare.measure_error(mine, want)
        if candidate.rms > max(_NEARLY_RIGHT, 16 * usual.rms):
            mismatch = compare.find_mismatch(got, want, mine, self._admission.tolerance)
            if mismatch is not None:
                raise Refused(WrongAnswer(reason=f"with sums of few terms in a part of it: {mismatch}"))
        refusal = self._find_downgrade(candidate, usual, sensitivity.local)
        if refusal is not None:
            raise refusal
        return True

    def _require_allowed_arithmetic(self) -> None:
        """Half precision, or TF32 where the reference has none, that was seen at work and that no probe
        vouches for.
        """
        if self._reference.precision != "fp32" or self._shows_fp32:
            return
        allowed = ("tf32",) if self._admission.sensitivity.may_use_tf32 else ()
        seen = [line for line in self._arithmetic if not line.startswith(allowed or ("none",))]
        if not seen:
            return
        raise Refused(
            Rejected(
                reason=f"it computes in a lower precision than the task's ({'; '.join(seen[:3])}), which the "
                "task's output does not show, and no inputs show that it keeps the accuracy of fp32",
                family="precision_downgrade",
            )
        )

    def _audit(self) -> Audit:
        exchange = self._check_one(self.draw(), "audit")
        if exchange.seen is None:
            raise CandidateForged("no audit")
        torch_ops, custom = exchange.seen.torch_ops, exchange.seen.custom_kernel
        self._arithmetic += exchange.seen.arithmetic
        if torch_ops and self._protocol.torch_ops == "forbid":
            reason = f"--torch-ops forbid, and it calls {', '.join(torch_ops[:10])}"
            raise Refused(Rejected(reason=reason, family="torch_ops"))
        notes = notes_on_form(exchange.outputs[0], self._expected)
        if not custom:
            notes.append("No custom kernel: everything that wrote the outputs was PyTorch.")
        elif torch_ops and self._protocol.torch_ops == "warn":
            notes.append(f"Part of the work is PyTorch's: {', '.join(torch_ops[:10])}.")
        return Audit(custom_kernel=custom, torch_ops=torch_ops, notes=tuple(notes))

    def _time(self, sessions: Sessions) -> samples.Session:
        sessions.warm_up()
        self._cores.clear()
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
        kernels = self._worker.profile(self.draw())[:_MOST_KERNELS]
        if not kernels:
            return audit
        total_us = sum(kernel.us for kernel in kernels) or 1.0
        self._arithmetic += [line for kernel in kernels for line in arithmetic_of_kernel(kernel.name)]
        parts = [f"{k.name} {k.us / total_us:.0%} ({k.calls}x, {k.us:.4g} us)" for k in kernels]
        return replace(audit, notes=(*audit.notes, f"Kernels of a call: {'; '.join(parts)}."))

    def _charge_for_cores(self, session: samples.Session) -> samples.Session:
        """Both models get the same number of cores; more than that are no better kernel.

        Threads that overlap a little are charged for it, in their times. Helpers that keep cores busy of
        their own are refused.
        """
        threads = torch.get_num_threads()
        used = median(self._cores) / threads
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
        scatter: samples.Scatter,
        latency: samples.Latency | None,
    ) -> Measured:
        kernel_ms, reference_ms, clocks = session.kernel_ms, session.reference_ms, session.clocks
        draw = self.draw()
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
        moved = samples.drift(reference_ms)
        if not 0.8 < moved < 1.25:
            notes.append(f"The reference's time drifted by a factor of {moved:.2f} while measuring.")
        interval = samples.ratio_interval(reference_ms, kernel_ms, self._rng, scatter)
        num, timed = len(kernel_ms), self._protocol.timed
        if num < timed:
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
            interval=samples.ratio_interval(
                latency.reference_ms, latency.kernel_ms, self._rng, samples.LATENCY_SCATTER
            ),
        )
        return by_device, by_caller

    @property
    def most_calls(self) -> int:
        """How many inputs both workers have room for; one at a time where an output may be the memory of the
        last.
        """
        if self._protocol.outputs == "reusable":
            return 1
        return min(self._worker.input_buffer.slots, self._reference_worker.input_buffer.slots)

    def reference_block(self, draws: list[Draw]) -> samples.Block:
        """Calls of the reference, played by a child just as the candidate is."""
        return self._play_reference(lambda worker: worker.exchange("run", draws))

    def reference_batch(self, draws: list[Draw]) -> samples.Block:
        return self._play_reference(lambda worker: worker.batch("run", draws))

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block:
        """Of a copy in the reference's place, in the reference's child."""
        sizes = self._reference.output_sizes
        return self._play_reference(
            lambda worker: worker.batch("rehearse", draws, marked=marked, output_bytes=sizes)
        )

    def _play_reference(self, play: Callable[[Worker], Exchange]) -> samples.Block:
        worker = self._reference_worker
        try:
            exchange = play(worker)
            worker.release()
        except (CandidateDied, CandidateRaised, CandidateForged) as error:
            if isinstance(error, CandidateDied):
                raise ReferenceWorkerDied(
                    "the process that plays the reference ended while it was timed"
                ) from None
            if isinstance(error, CandidateRaised) and is_out_of_memory(f"{error.kind} {error}"):
                raise torch.OutOfMemoryError(str(error)) from None
            raise TaskError(f"the reference failed while it was timed: {error}") from None
        self._verdict.device_s += exchange.wall_ns / 1e9
        return exchange.block

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block:
        """Calls of the candidate, of which as many as `checked` have to be right, nobody knows which."""
        return self._play_candidate(self._worker.exchange, draws, checked)

    def latencies(self) -> tuple[samples.Block, samples.Block]:
        """One call of either model as its caller sees it, on the same inputs, in either order."""
        draws = [self.draw()]

        def ours() -> samples.Block:
            checked = int(self._rng.random() < _CHECKED_LATENCIES)
            return self._play_candidate(self._worker.exchange, draws, checked, "latency")

        def theirs() -> samples.Block:
            return self._play_reference(lambda worker: worker.exchange("latency", draws))

        if self._rng.random() < 0.5:
            return theirs(), ours()
        block = ours()
        return theirs(), block

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block:
        return self._play_candidate(self._worker.batch, draws, checked)

    def _play_candidate(
        self,
        play: Callable[[str, list[Draw]], Exchange],
        draws: list[Draw],
        checked: int,
        operation: str = "run",
    ) -> samples.Block:
        chosen = self._rng.sample(range(len(draws)), min(checked, len(draws)))
        exchange = play(operation, draws)
        for index, got in zip(chosen, self._outputs_of(exchange, draws, chosen), strict=True):
            own = self._own_answer(draws[index])
            self._require_right(got, own, own, draws[index])
            if self._reference.has_exact and self._rng.random() < _PRECISION_SHARE:
                self._require_precise(got, own, draws[index])
        return exchange.block

    def _require_precise(self, got: list[torch.Tensor], own: Output, draw: Draw) -> None:
        """As in the checks, of a call that was timed."""
        exact = self._exact_answer(draw).tensors
        candidate, usual = compare.measure_error(got, exact), compare.measure_error(own.tensors, exact)
        downgrade = self._find_downgrade(candidate, usual, self._dense)
        if downgrade is not None:
            raise downgrade

    def _call(
        self, operation: str, draws: list[Draw], chosen: list[int]
    ) -> tuple[Exchange, list[list[torch.Tensor]]]:
        """Have the candidate answer `draws` in one block; its answers to the `chosen` ones."""
        exchange = self._worker.exchange(operation, draws)
        return exchange, self._outputs_of(exchange, draws, chosen)

    def _outputs_of(
        self, exchange: Exchange, draws: list[Draw], chosen: list[int]
    ) -> list[list[torch.Tensor]]:
        """The answers to the `chosen` draws, in good form; the candidate drops all of them."""
        worker = self._worker
        self._verdict.device_s += exchange.wall_ns / 1e9
        self._cores.append(exchange.cores)
        admission = self._admission
        inputs = (
            None
            if admission.aliases_inputs
            else range(worker.base, worker.base + worker.input_buffer.size_bytes)
        )
        require_separate(exchange.outputs, inputs)
        for output in exchange.outputs:
            require_form(output, self._expected)
        outputs = []
        for index in chosen:
            outputs.append(worker.read(exchange, index))
            if not admission.mutates_inputs:
                require_unchanged(worker.seen_inputs(exchange, index), draws[index].tensors)
        worker.release()
        return outputs


def _rounded(times_ms: Sequence[float]) -> tuple[float, ...]:
    """To a nanosecond, which is what the clocks count in."""
    return tuple(round(ms, 6) for ms in times_ms)
