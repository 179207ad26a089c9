"""One candidate before the strict judge: load, check, audit, time. The order of docs/evaluation.md."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
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
from kbopt.evaluation import compare, linux, roofline, timing
from kbopt.evaluation.admission import Admission, same_bits
from kbopt.evaluation.arena import Arena
from kbopt.evaluation.layout import TensorSpec, aligned, view
from kbopt.evaluation.link import (
    CandidateDied,
    CandidateForged,
    CandidateRaised,
    Link,
    OutOfTime,
    SourceRejected,
)
from kbopt.evaluation.reference import Draw, Output, Reference

_NUM_CALIBRATIONS = 12
_LONGEST_BLOCK = 8
_NUM_LONG_BLOCKS = 6
_CHECKED_SHARE = 0.25
_PROBE_SHARES = (0.25, 0.004)
_CLOCK_SLACK_MS = 0.15
_MOST_TIMING_SHARE = 0.5
_FEWEST_TIMED = 10
_CORES_TOLERANCE = 1.15


class Refused(Exception):
    """The verdict is known; `outcome` is it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(slots=True, kw_only=True)
class Verdict:
    """`outcome` is None where the candidate's process died: the supervisor knows how."""

    outcome: Outcome | None = None
    frames: str = ""
    spans: list[tuple[Stage, float, float]] = field(default_factory=list)
    device_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    """Processor time of the candidate, and time that it and the referee waited for a core."""

    cpu_ns: int
    displaced_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """An answer, how long it took by the referee's clock, and where each call's inputs lay."""

    reply: Any
    wall_ns: int
    displaced_ns: int
    offsets: list[list[int]]


class Judgement:
    """Drives one candidate through the strict protocol. `run` once, then `close`."""

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        link: Link,
        warden: int,
        threads: int,
    ) -> None:
        self._reference = reference
        self._admission = admission
        self._protocol = protocol
        self._link = link
        self._warden = warden
        self._pid = 0
        self._threads = threads
        self._rng = random.Random(secrets.randbits(128))
        self._verdict = Verdict()
        self._arena: Arena | None = None
        self._base = 0
        self._expected: Output
        self._slowest_ms = 0.0
        self._cores: list[float] = []

    def run(self, source: str) -> Verdict:
        """The verdict; what the candidate does wrong is data, TaskError is the task's own fault."""
        verdict = self._verdict
        stage: Stage = "check"
        try:
            with self._span("check"):
                overhead = self._open()
                self._build(source)
                self._check()
                self._probe_precision()
                audit = self._audit()
            stage = "time"
            with self._span("time"):
                verdict.outcome = self._time(audit, overhead)
        except Refused as refusal:
            verdict.outcome = refusal.outcome
        except SourceRejected as error:
            verdict.outcome = CompileFailed(reason=str(error))
        except CandidateRaised as error:
            verdict.frames = error.frames
            verdict.outcome = Crashed(reason=str(error), how=error.kind)
        except OutOfTime:
            limit_s = self._protocol.timeout_s
            reason = f"no answer within {limit_s:g} s of check and timing"
            verdict.outcome = TimedOut(reason=reason, stage=stage, limit_s=limit_s)
        except CandidateForged as error:
            verdict.outcome = Rejected(
                reason=f"the child's messages were forged: {error}", family="forged_verdict"
            )
        except CandidateDied:
            verdict.outcome = None
        verdict.busy_s = self._link.busy_s
        return verdict

    def close(self) -> None:
        if self._arena is not None:
            self._arena.close()

    @contextmanager
    def _span(self, stage: Stage) -> Iterator[None]:
        started, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self._verdict.spans.append((stage, started, time.perf_counter() - clock))

    def _open(self) -> timing.Overhead:
        """Share the inputs' memory, and learn what an empty request costs."""
        draw = self._draw()
        reference = self._reference
        init_bytes = sum(aligned(TensorSpec.of(t).size_bytes) for t in reference.init_tensors)
        specs = [TensorSpec.of(tensor) for tensor in draw.tensors]
        self._arena = Arena(specs, _LONGEST_BLOCK, init_bytes)
        self._expected = self._own_answer(draw)
        reply = self._link.ask(
            "open",
            (self._arena.fd,),
            threads=self._threads,
            device=str(reference.device),
            skeleton=draw.skeleton,
            specs=[spec.to_json() for spec in specs],
        )
        self._base = int(reply["base"])
        # Before any candidate code is loaded the warden has one child.
        children = Path(f"/proc/{self._warden}/task/{self._warden}/children").read_text().split()
        self._pid = int(children[0])
        return self._calibrate(draw)

    def _calibrate(self, draw: Draw) -> timing.Overhead:
        """What requests cost by themselves, before candidate code can make them look dearer."""
        slots = self._ready_arena.slots
        costs = {}
        for length in {1, slots}:
            walls = []
            for _ in range(_NUM_CALIBRATIONS):
                exchange = self._exchange("run", [draw] * length)
                walls.append(exchange.wall_ns - exchange.displaced_ns - sum(exchange.reply["ns"]))
                self._release()
            costs[length] = median(walls) / 1e6
        self._cores.clear()
        return timing.Overhead.through(1, costs[1], slots, costs[slots])

    def _build(self, source: str) -> None:
        reference, arena = self._reference, self._ready_arena
        self._link.ask(
            "build",
            source=source,
            weight_seed=reference.weight_seed,
            precision=reference.precision,
            init_skeleton=reference.init_skeleton,
            init_specs=[TensorSpec.of(t).to_json() for t in reference.init_tensors],
            init_offsets=arena.place(reference.init_tensors),
        )

    @property
    def _ready_arena(self) -> Arena:
        assert self._arena is not None
        return self._arena

    def _draw(self) -> Draw:
        return self._reference.draw(secrets.randbits(62))

    def _check(self) -> None:
        for _ in range(self._protocol.trials):
            self._check_one(self._draw())

    def _check_one(self, draw: Draw, operation: str = "run") -> Any:
        """One call, compared with float64. The reply, for what else it says."""
        exact = self._reference.run_exact(draw)
        own = self._own_answer(draw)
        exchange, outputs = self._call(operation, [draw], [0])
        self._require_right(outputs[0], exact, own)
        candidate = compare.measure_error(outputs[0], exact.tensors)
        self._require_precision(candidate, compare.measure_error(own.tensors, exact.tensors))
        return exchange.reply

    def _own_answer(self, draw: Draw) -> Output:
        """What the reference itself gives, on a copy of the inputs so that it cannot change them."""
        started = time.perf_counter()
        output = self._reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))
        self._verdict.device_s += time.perf_counter() - started
        return output

    def _require_right(self, got: list[torch.Tensor], exact: Output, own: Output) -> None:
        mismatch = compare.find_mismatch(got, exact.tensors, own.tensors, self._admission.tolerance)
        if mismatch is not None:
            raise Refused(WrongAnswer(reason=str(mismatch)))

    def _require_precision(self, candidate: compare.Error, reference: compare.Error) -> None:
        precision = self._reference.precision
        if not self._reference.has_exact or not compare.is_downgrade(candidate, reference, precision):
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
            draw = self._draw()
            tensors = tuple(
                compare.sparse_probe(t, share) if t.is_floating_point() and t.numel() > 64 else t
                for t in draw.tensors
            )
            probe = Draw(skeleton=draw.skeleton, tensors=tensors)
            exact = self._reference.run_exact(probe)
            own = self._own_answer(probe)
            if not all(bool(torch.isfinite(t).all()) for t in own.tensors if t.is_floating_point()):
                continue
            _, outputs = self._call("run", [probe], [0])
            candidate = compare.measure_error(outputs[0], exact.tensors)
            self._require_precision(candidate, compare.measure_error(own.tensors, exact.tensors))

    def _audit(self) -> Audit:
        seen = self._check_one(self._draw(), "audit")["audit"]
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

    def _time(self, audit: Audit, overhead: timing.Overhead) -> Measured:
        reference_ms: list[float] = []
        singles: list[timing.Block] = []
        longer: list[timing.Block] = []
        self._warm_up()
        for length in self._plan():
            draws = [self._draw() for _ in range(length)]
            if length > 1:
                longer.append(self._candidate_block(draws, check=self._rng.random() < 0.5))
                continue
            reference_first = self._rng.random() < 0.5
            if reference_first:
                reference_ms.append(self._reference_call(draws[0]))
            block = self._candidate_block(draws, check=self._rng.random() < _CHECKED_SHARE)
            if not reference_first:
                reference_ms.append(self._reference_call(draws[0]))
            singles.append(block)
        clocks = timing.read_clocks(singles, longer, overhead)
        if not clocks.agree(_CLOCK_SLACK_MS):
            raise Refused(
                Rejected(
                    reason=f"by its own clock a call takes {clocks.native_ms:.4g} ms, by the referee's "
                    f"{clocks.wall_ms:.4g} ms: work is done where the timer does not look",
                    family="timing_mismatch",
                )
            )
        self._require_own_cores()
        # What the child's clock did not see counts all the same: hiding less than is punished gains nothing.
        hidden_ms = clocks.wall_ms - clocks.native_ms
        believed_ms = [block.single_ms(overhead) + hidden_ms for block in singles]
        return self._measured(audit, believed_ms, reference_ms, clocks)

    def _require_own_cores(self) -> None:
        """Both models get the same number of cores; more threads than that are no better kernel."""
        used = median(self._cores)
        if self._reference.device.type == "cpu" and used > _CORES_TOLERANCE * self._threads:
            reason = f"it keeps {used:.1f} cores busy where the reference is given {self._threads}"
            raise Refused(Rejected(reason=reason, family="extra_threads"))

    def _measured(
        self, audit: Audit, kernel_ms: list[float], reference_ms: list[float], clocks: timing.Clocks
    ) -> Measured:
        draw = self._draw()
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
        if len(kernel_ms) < self._protocol.timed:
            notes.append(
                f"{len(kernel_ms)} timed calls instead of {self._protocol.timed}: the task is slow here."
            )
        return Measured(
            kernel_ms=tuple(round(ms, 6) for ms in kernel_ms),
            reference_ms=tuple(round(ms, 6) for ms in reference_ms),
            speedup=median(reference_ms) / kernel,
            speedup_ci=timing.ratio_interval(reference_ms, kernel_ms, self._rng),
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

    def _warm_up(self) -> None:
        for _ in range(3):
            draw = self._draw()
            self._slowest_ms = self._reference_call(draw) + self._candidate_block([draw], check=False).wall_ms

    def _plan(self) -> list[int]:
        """Lengths of blocks: `timed` single calls, and a few longer blocks somewhere between them."""
        affordable = _MOST_TIMING_SHARE * self._protocol.timeout_s * 1000 / max(self._slowest_ms, 1e-3)
        timed = min(self._protocol.timed, max(_FEWEST_TIMED, int(affordable)))
        plan = [1] * timed
        most = self._ready_arena.slots
        if most > 1:
            num_long = min(_NUM_LONG_BLOCKS, max(1, timed // 10))
            plan += [self._rng.randint(2, most) for _ in range(num_long)]
        self._rng.shuffle(plan)
        return plan

    def _reference_call(self, draw: Draw) -> float:
        """Milliseconds of one call of the reference, on memory of the same kind as the candidate's."""
        arguments = draw.arguments(tuple(t.clone() for t in draw.tensors))
        model = self._reference.model
        with torch.no_grad():
            displaced_ns = linux.displaced_ns()
            started = time.perf_counter_ns()
            output = model(*arguments)
            elapsed_ns = time.perf_counter_ns() - started
            displaced_ns = linux.displaced_ns() - displaced_ns
        del output
        self._verdict.device_s += elapsed_ns / 1e9
        return (elapsed_ns - min(displaced_ns, elapsed_ns // 2)) / 1e6

    def _candidate_block(self, draws: list[Draw], *, check: bool) -> timing.Block:
        chosen = [self._rng.randrange(len(draws))] if check else []
        exchange, outputs = self._call("run", draws, chosen)
        for index, got in zip(chosen, outputs, strict=True):
            own = self._own_answer(draws[index])
            self._require_right(got, own, own)
        return timing.Block(
            native_ms=tuple(ns / 1e6 for ns in exchange.reply["ns"]),
            wall_ms=exchange.wall_ns / 1e6,
            displaced_ms=exchange.displaced_ns / 1e6,
        )

    def _call(
        self, operation: str, draws: list[Draw], chosen: list[int]
    ) -> tuple[_Exchange, list[list[torch.Tensor]]]:
        """Have the candidate answer `draws` in one block; its answers to the `chosen` ones."""
        exchange = self._exchange(operation, draws)
        reply, arena = exchange.reply, self._ready_arena
        self._require_separate(reply["outputs"], arena.size_bytes)
        outputs = [self._read(reply["outputs"][index]) for index in chosen]
        for index in chosen:
            self._require_unchanged(draws[index], arena.views(exchange.offsets[index]))
        self._release()
        return exchange, outputs

    def _release(self) -> None:
        """Let the candidate run again, and drop its outputs."""
        self._link.resume()
        self._link.ask("free")

    def _exchange(self, operation: str, draws: list[Draw]) -> _Exchange:
        """One request and its answer; the candidate is left paused.

        The inputs are written while all of its processes are paused, and the clock runs from before they
        are resumed until it says that it is done; then they are paused again, and only then are the
        outputs read out of its memory. Nothing can be computed before or after.
        """
        arena, link = self._ready_arena, self._link
        link.pause()
        offsets = [arena.fill(slot, draw.tensors, self._rng) for slot, draw in enumerate(draws)]
        before = self._usage()
        started = time.perf_counter_ns()
        link.resume()
        reply = link.ask(operation, offsets=offsets)
        wall_ns = time.perf_counter_ns() - started
        link.pause()
        after = self._usage()
        cpu_ns = after.cpu_ns - before.cpu_ns
        self._cores.append(cpu_ns / wall_ns)
        self._verdict.device_s += wall_ns / 1e9
        self._require_plausible_reply(reply, len(draws))
        # Other processes of the machine may have kept it waiting. That is believed as far as its own
        # processor time leaves room for it, and not at all where it has helper processes.
        displaced_ns = 0
        if not linux.has_children(self._pid):
            displaced_ns = min(after.displaced_ns - before.displaced_ns, max(0, wall_ns - cpu_ns))
        return _Exchange(reply=reply, wall_ns=wall_ns, displaced_ns=displaced_ns, offsets=offsets)

    def _usage(self) -> _Usage:
        return _Usage(
            cpu_ns=linux.process_cpu_ns(self._pid),
            displaced_ns=linux.displaced_ns(self._pid) + linux.displaced_ns(),
        )

    def _require_plausible_reply(self, reply: Any, num_calls: int) -> None:
        times, outputs = reply.get("ns"), reply.get("outputs")
        if not isinstance(times, list) or not isinstance(outputs, list):
            raise CandidateForged("an answer without times or outputs")
        if len(times) != num_calls or len(outputs) != num_calls:
            raise CandidateForged("an answer for another number of calls")
        if not all(type(ns) is int and 0 <= ns < 2**62 for ns in times):
            raise CandidateForged("times that are no numbers")

    def _require_separate(self, outputs: list[Any], arena_bytes: int) -> None:
        """No output may lie in the inputs' memory, nor in that of another call's."""
        spans: list[tuple[int, int]] = []
        for output in outputs:
            self._require_tensors(output)
            for address, raw_spec, _ in output["tensors"]:
                spec = TensorSpec.from_json(raw_spec)
                if spec.size_bytes:
                    spans.append((address, address + spec.size_bytes))
        if not self._admission.aliases_inputs and any(
            start < self._base + arena_bytes and self._base < end for start, end in spans
        ):
            raise Refused(
                Rejected(
                    reason="it returns the memory of an input instead of an output", family="aliased_input"
                )
            )
        spans.sort()
        if len(outputs) > 1 and any(one[1] > two[0] for one, two in pairwise(spans)):
            reason = "two calls return the same memory, so that the later result overwrites the earlier one"
            raise Refused(Rejected(reason=reason, family="reused_output"))

    def _require_tensors(self, output: Any) -> None:
        if not isinstance(output, dict):
            raise CandidateForged("an output that is none")
        if "unusable" in output:
            reason = f"it returns a {str(output['unusable'])[:200]}; only plain tensors are accepted"
            raise Refused(Rejected(reason=reason, family="output_type"))
        try:
            for address, raw_spec, device in output["tensors"]:
                TensorSpec.from_json(raw_spec)
                if type(address) is not int or not 0 <= address < 2**63 or not isinstance(device, str):
                    raise CandidateForged("an output at no address")
        except (KeyError, TypeError, ValueError) as error:
            raise CandidateForged(f"an output that is none: {error}"[:200]) from None

    def _read(self, output: Any) -> list[torch.Tensor]:
        """The candidate's answer, copied out of its memory, once it has the expected form."""
        expected = self._expected
        if output.get("skeleton") != expected.skeleton:
            raise Refused(WrongAnswer(reason="it returns another structure than the reference does"))
        tensors = []
        for number, ((address, raw_spec, device), want) in enumerate(
            zip(output["tensors"], expected.tensors, strict=True)
        ):
            spec = TensorSpec.from_json(raw_spec)
            wanted = TensorSpec.of(want)
            if spec.shape != wanted.shape or spec.dtype != wanted.dtype or device != want.device.type:
                raise Refused(
                    WrongAnswer(
                        reason=f"output {number} is {spec.dtype}{list(spec.shape)} on {device}; "
                        f"{wanted.dtype}{list(wanted.shape)} on {want.device.type} is expected"
                    )
                )
            tensors.append(self._copy_out(address, spec))
        return tensors

    def _copy_out(self, address: int, spec: TensorSpec) -> torch.Tensor:
        buffer = torch.empty(spec.size_bytes, dtype=torch.uint8)
        try:
            linux.read_memory(self._pid, address, buffer.data_ptr(), spec.size_bytes)
        except OSError as error:
            raise CandidateForged(f"an output at an address that cannot be read: {error}") from None
        return view(buffer, spec, 0)

    def _require_unchanged(self, draw: Draw, seen: tuple[torch.Tensor, ...]) -> None:
        if self._admission.mutates_inputs:
            return
        if not all(same_bits(now, then) for now, then in zip(seen, draw.tensors, strict=True)):
            raise Refused(
                Rejected(
                    reason="it writes to its inputs, which the reference does not", family="input_mutation"
                )
            )
