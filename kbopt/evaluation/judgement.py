"""One candidate before the strict judge: load, check, time, audit. The order of docs/evaluation.md."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

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
    Stage,
    TimedOut,
    WrongAnswer,
)
from kbopt.evaluation import compare, roofline, timing
from kbopt.evaluation.admission import Admission
from kbopt.evaluation.answers import Refused, require_form, require_separate, require_unchanged
from kbopt.evaluation.link import (
    CandidateDied,
    CandidateForged,
    CandidateRaised,
    OutOfTime,
    SourceRejected,
)
from kbopt.evaluation.player import Exchange, LateOutput, Player
from kbopt.evaluation.reference import Draw, Output, Reference, TaskError, TaskTooLarge
from kbopt.evaluation.sessions import Sessions

_PROBE_SHARES = (0.25, 0.004)
_MOST_SESSIONS = 3
_CORES_TOLERANCE = 1.15
_MOST_CORES = 1.6
"""Relative to the reference's: in between, a candidate is charged for the cores that it used."""
_MOST_KERNELS = 5
_MODEST_SHARE = 0.25
"""Of the device's free memory: a candidate that takes less is not to blame where the reference needs more."""
_COMPILER_ERRORS = ("CompilationError", "NotBuilt")
_EXTENSION_ERROR = "RuntimeError: Error building extension"
_NEARLY_RIGHT = 0.01
"""Relative errors up to here are those of a lower precision; beyond, the answer is simply wrong."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """`outcome` is None where the candidate's process died: the supervisor knows how."""

    outcome: Outcome | None = None
    frames: str = ""
    spans: list[tuple[Stage, float, float]] = field(default_factory=list)
    device_s: float = 0.0
    busy_s: float = 0.0


class Judgement:
    """Drives one candidate through the strict protocol. `run` once.

    `seat` starts to play the candidate's child; `reference_player` plays the reference.
    """

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        reference_player: Player,
        seat: Callable[[], Player],
        rng: random.Random,
    ) -> None:
        self._reference = reference
        self._admission = admission
        self._protocol = protocol
        self._reference_player = reference_player
        self._seat = seat
        self._rng = rng
        self._verdict = Verdict()
        self._expected = self._own_answer(self.draw())
        self._own_errors = (0.0,) * len(self._expected.tensors)
        self._free_bytes = reference.free_bytes
        self._cores: list[float] = []
        self._on_cpu = reference.device.type == "cpu"
        self._player: Player

    def run(self, source: str, setup: str) -> Verdict:
        """The verdict; what the candidate does wrong is data, TaskError is the task's own fault."""
        verdict = self._verdict
        with self._span("check"):
            try:
                self._player = self._seat()
            except CandidateDied:
                return verdict
        try:
            verdict.outcome = self._judge(source, setup)
        finally:
            verdict.busy_s = self._player.link.busy_s
            self._player.close()
            self._player.link.close()
        return verdict

    def _judge(self, source: str, setup: str) -> Outcome | None:
        stage: Stage = "check"
        try:
            with self._span("check"):
                overhead = self._player.overhead
                sessions = Sessions(self, self._reference, self._protocol, overhead, self._rng)
                sessions.calibrate()
                self._player.build(source, setup)
                self._check()
                self._probe_precision()
            stage = "time"
            with self._span("time"):
                session = self._time(sessions)
            stage = "check"
            with self._span("check"):
                # Only now: a process in which a profiler ran launches kernels more slowly.
                audit = self._audit()
                audit = replace(audit, notes=(*audit.notes, *session.notes))
                return self._measured(self._with_profile(audit), session, sessions.scatter_of(session))
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
            return TimedOut(reason=reason, stage=stage, limit_s=limit_s)
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
        if taken_gib < _MODEST_SHARE * self._free_bytes / 2**30:
            raise TaskTooLarge(
                "the reference and its float64 answer do not fit beside a candidate's outputs into the "
                f"device's memory: {error}. Make the task's inputs smaller or use a larger device"
            )
        reason = f"it takes {taken_gib:.1f} GiB of the device's memory, which leaves no room for its check"
        return Crashed(reason=reason, how="out of memory")

    @contextmanager
    def _span(self, stage: Stage) -> Iterator[None]:
        started, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self._verdict.spans.append((stage, started, time.perf_counter() - clock))

    def draw(self) -> Draw:
        return self._reference.draw(self._rng.getrandbits(62))

    def _check(self) -> None:
        for _ in range(self._protocol.trials):
            self._check_one(self.draw())

    def _check_one(self, draw: Draw, operation: str = "run") -> Any:
        """One call, compared with float64. What an audit saw, where `operation` is one."""
        exact = self._exact_answer(draw)
        own = self._own_answer(draw)
        errors = compare.largest_errors(own.tensors, exact.tensors)
        self._own_errors = tuple(map(max, self._own_errors, errors))
        exchange, outputs = self._call(operation, [draw], [0])
        candidate = compare.measure_error(outputs[0], exact.tensors)
        self._require_precision(candidate, compare.measure_error(own.tensors, exact.tensors))
        self._require_right(outputs[0], exact, own)
        return exchange.audit

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

    def _require_right(self, got: list[torch.Tensor], exact: Output, own: Output) -> None:
        mismatch = compare.find_mismatch(
            got, exact.tensors, own.tensors, self._admission.tolerance, self._own_errors
        )
        if mismatch is not None:
            raise Refused(WrongAnswer(reason=str(mismatch)))

    def _require_precision(self, candidate: compare.Error, reference: compare.Error) -> None:
        precision = self._reference.precision
        if not self._reference.has_exact or candidate.rms > max(_NEARLY_RIGHT, 16 * reference.rms):
            return
        if not compare.is_downgrade(candidate, reference, precision):
            return
        raise Refused(
            Rejected(
                reason=f"its relative error against float64 is {candidate.rms:.2g} where the reference at "
                f"{precision} makes {reference.rms:.2g}: it computes at a lower precision than the task's",
                family="precision_downgrade",
            )
        )

    def _probe_precision(self) -> None:
        """Sparse inputs, where the rounding of single products is not hidden by that of long sums."""
        if not self._reference.has_exact:
            return
        for share in _PROBE_SHARES:
            draw = self.draw()
            tensors = tuple(
                compare.sparse_probe(t, share) if t.is_floating_point() and t.numel() > 64 else t
                for t in draw.tensors
            )
            probe = Draw(skeleton=draw.skeleton, tensors=tensors)
            exact = self._exact_answer(probe)
            own = self._own_answer(probe)
            if not all(bool(torch.isfinite(t).all()) for t in own.tensors if t.is_floating_point()):
                continue
            _, outputs = self._call("run", [probe], [0])
            candidate = compare.measure_error(outputs[0], exact.tensors)
            reference = compare.measure_error(own.tensors, exact.tensors)
            self._require_precision(candidate, reference)
            if candidate.rms > max(_NEARLY_RIGHT, 16 * reference.rms):
                mismatch = compare.find_mismatch(
                    outputs[0], exact.tensors, own.tensors, self._admission.tolerance
                )
                raise Refused(WrongAnswer(reason=f"where most elements of the inputs are zero: {mismatch}"))

    def _audit(self) -> Audit:
        seen = self._check_one(self.draw(), "audit")
        try:
            torch_ops = tuple(str(name)[:100] for name in seen["torch_ops"][:50])
            custom = bool(seen["custom_kernel"])
        except (KeyError, TypeError):
            raise CandidateForged("an audit that is none") from None
        if torch_ops and self._protocol.torch_ops == "forbid":
            reason = f"--torch-ops forbid, and it calls {', '.join(torch_ops[:10])}"
            raise Refused(Rejected(reason=reason, family="torch_ops"))
        notes = []
        if not custom:
            notes.append("No custom kernel: everything that wrote the outputs was PyTorch.")
        elif torch_ops and self._protocol.torch_ops == "warn":
            notes.append(f"Part of the work is PyTorch's: {', '.join(torch_ops[:10])}.")
        return Audit(custom_kernel=custom, torch_ops=torch_ops, notes=tuple(notes))

    def _time(self, sessions: Sessions) -> timing.Session:
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
                reason=f"by its own clock a call takes {session.clocks.native_ms:.4g} ms, by the referee's "
                f"{session.clocks.wall_ms:.4g} ms: work is done where the timer does not look",
                family="timing_mismatch",
            )
        )

    def _with_profile(self, audit: Audit) -> Audit:
        """On a GPU, the kernels that a call spends its time in."""
        if self._on_cpu:
            return audit
        rows = self._player.profile(self.draw())
        try:
            kernels = [(str(name)[:80], int(calls), float(us)) for name, calls, us in rows[:_MOST_KERNELS]]
        except (TypeError, ValueError):
            raise CandidateForged("a profile that is none") from None
        if not kernels:
            return audit
        total_us = sum(us for *_, us in kernels) or 1.0
        parts = [f"{name} {us / total_us:.0%} ({calls}x, {us:.4g} us)" for name, calls, us in kernels]
        return replace(audit, notes=(*audit.notes, f"Kernels of a call: {'; '.join(parts)}."))

    def _charge_for_cores(self, session: timing.Session) -> timing.Session:
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

    def _measured(self, audit: Audit, session: timing.Session, scatter: timing.Scatter) -> Measured:
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
        moved = timing.drift(reference_ms)
        if not 0.8 < moved < 1.25:
            notes.append(f"The reference's time drifted by a factor of {moved:.2f} while measuring.")
        num, timed = len(kernel_ms), self._protocol.timed
        if num < timed:
            notes.append(f"{num} timed calls instead of {timed}: enough for half a percent, or slow.")
        return Measured(
            kernel_ms=tuple(round(ms, 6) for ms in kernel_ms),
            reference_ms=tuple(round(ms, 6) for ms in reference_ms),
            speedup=median(reference_ms) / kernel,
            speedup_ci=timing.ratio_interval(reference_ms, kernel_ms, self._rng, scatter),
            native_ms=clocks.native_ms,
            wall_ms=clocks.wall_ms,
            audit=Audit(custom_kernel=audit.custom_kernel, torch_ops=audit.torch_ops, notes=tuple(notes)),
            roofline=Roofline(
                size_bytes=work.size_bytes,
                operations=work.operations,
                floor_ms=work.floor_ms,
                share=work.floor_ms / kernel,
            ),
        )

    @property
    def most_calls(self) -> int:
        """How many inputs both players have room for."""
        return min(self._player.arena.slots, self._reference_player.arena.slots)

    def reference_block(self, draws: list[Draw]) -> timing.Block:
        """Calls of the reference, played by a child just as the candidate is."""
        return self._play_reference(lambda player: player.exchange("run", draws))

    def reference_volley(self, draws: list[Draw]) -> timing.Block:
        return self._play_reference(lambda player: player.volley("run", draws))

    def copies_volley(self, draws: list[Draw], *, marked: bool = False) -> timing.Block:
        """Of a copy in the reference's place, in the reference's child."""
        sizes = self._reference.output_sizes
        return self._play_reference(
            lambda player: player.volley("rehearse", draws, marked=marked, output_bytes=sizes)
        )

    def _play_reference(self, play: Callable[[Player], Exchange]) -> timing.Block:
        player = self._reference_player
        try:
            exchange = play(player)
            player.release()
        except (CandidateDied, CandidateRaised, CandidateForged) as error:
            if isinstance(error, CandidateRaised) and error.kind == torch.OutOfMemoryError.__name__:
                raise torch.OutOfMemoryError(str(error)) from None
            raise TaskError(f"the reference failed while it was timed: {error}") from None
        self._verdict.device_s += exchange.wall_ns / 1e9
        return exchange.block

    def candidate_block(self, draws: list[Draw], *, checked: int) -> timing.Block:
        """Calls of the candidate, of which as many as `checked` have to be right, nobody knows which."""
        return self._play_candidate(self._player.exchange, draws, checked)

    def candidate_volley(self, draws: list[Draw], *, checked: int) -> timing.Block:
        return self._play_candidate(self._player.volley, draws, checked)

    def _play_candidate(
        self, play: Callable[[str, list[Draw]], Exchange], draws: list[Draw], checked: int
    ) -> timing.Block:
        chosen = self._rng.sample(range(len(draws)), min(checked, len(draws)))
        exchange = play("run", draws)
        for index, got in zip(chosen, self._outputs_of(exchange, draws, chosen), strict=True):
            own = self._own_answer(draws[index])
            self._require_right(got, own, own)
        return exchange.block

    def _call(
        self, operation: str, draws: list[Draw], chosen: list[int]
    ) -> tuple[Exchange, list[list[torch.Tensor]]]:
        """Have the candidate answer `draws` in one block; its answers to the `chosen` ones."""
        exchange = self._player.exchange(operation, draws)
        return exchange, self._outputs_of(exchange, draws, chosen)

    def _outputs_of(
        self, exchange: Exchange, draws: list[Draw], chosen: list[int]
    ) -> list[list[torch.Tensor]]:
        """The answers to the `chosen` draws, in good form; the candidate drops all of them."""
        player = self._player
        self._verdict.device_s += exchange.wall_ns / 1e9
        self._cores.append(exchange.cores)
        admission = self._admission
        inputs = (
            None if admission.aliases_inputs else range(player.base, player.base + player.arena.size_bytes)
        )
        require_separate(exchange.outputs, inputs)
        for output in exchange.outputs:
            require_form(output, self._expected)
        outputs = []
        for index in chosen:
            outputs.append(player.read(exchange, index))
            if not admission.mutates_inputs:
                require_unchanged(player.seen_inputs(exchange, index), draws[index].tensors)
        player.release()
        return outputs
