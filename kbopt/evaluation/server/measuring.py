"""Has the judge of a task measure candidates, on a CPU in several pairs of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Stage
from kbopt.core.ports import Phase
from kbopt.core.workloads import judged_of, workloads_of
from kbopt.evaluation import messages
from kbopt.evaluation.build.building import Built
from kbopt.evaluation.sandbox.children import Child, warm_up
from kbopt.evaluation.server.activity import Activity
from kbopt.evaluation.server.budget import Reservation
from kbopt.evaluation.server.cores import Cores
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judge_handle import JudgeHandle, NoMemory
from kbopt.evaluation.server.judges import Judges, Key, key_of
from kbopt.evaluation.server.neighbours import Neighbours
from kbopt.evaluation.server.sandboxes import Sandboxes
from kbopt.evaluation.server.timeline import Judged, Timeline
from kbopt.evaluation.timing import pairs, workloads

_PHASES: dict[Stage, Phase] = {"compile": "building", "check": "checking", "time": "timing"}


class Measuring:
    """Measures candidates. The caller holds the device lease.

    `arithmetic_of` returns what `build.inspection` finds in a build's machine code.
    """

    def __init__(
        self,
        device: Device,
        judges: Judges,
        sandboxes: Sandboxes,
        arithmetic_of: Callable[[Built], Sequence[str]],
        cores: Cores,
        activity: Activity,
    ) -> None:
        self._activity = activity
        self._device = device
        self._judges = judges
        self._sandboxes = sandboxes
        self._arithmetic_of = arithmetic_of
        self._cores = cores
        self._lacking: set[Key] = set()
        self._neighbours = Neighbours(device.uuid or device.torch, on_cuda=device.is_cuda)

    def measure(
        self,
        request: EvalRequest,
        built: Built,
        timeline: Timeline,
        child: Child,
        reservation: Reservation | None = None,
        *,
        in_pairs: bool = True,
    ) -> Judged:
        """Judge the candidate in `child`. On a CPU also time it in further pairs of processes, if `in_pairs`.

        A candidate that fails is an outcome. Raises UserError for a task that cannot be scored, and
        InfraError.
        """
        in_pairs = in_pairs and not self._device.is_cuda
        if in_pairs:
            request = replace(request, protocol=pairs.protocol_of_each(request.protocol))
        with self._neighbours.noticed():
            judged = self._judge_once(request, built, timeline, child, reservation)
            if in_pairs and judged.measured:
                judged = self._in_further_pairs(request, built, timeline, judged)
        if not judged.measured:
            return judged
        about = judged_of(workloads_of(request.task.source), held_out=request.baselines)
        outcome = workloads.combined(about, judged.measured)
        notes = filter(None, (_about_untried(judged.untried), self._neighbours.note))
        audit = replace(outcome.audit, notes=(*outcome.audit.notes, *notes))
        return replace(judged, outcome=replace(outcome, audit=audit))

    def _in_further_pairs(
        self, request: EvalRequest, built: Built, timeline: Timeline, first: Judged
    ) -> Judged:
        others: list[messages.Verdict] = []
        while len(others) < pairs.NUM_PAIRS - 1:
            found = self._another_pair(request, built, timeline)
            if isinstance(found, Judged):
                return found
            others.append(found)
        times = zip(*(other.pairs for other in others), strict=True)
        untried = tuple(name for name in first.untried if all(name in other.untried for other in others))
        return replace(first, measured=tuple(map(pairs.pooled, first.measured, times)), untried=untried)

    def _another_pair(
        self, request: EvalRequest, built: Built, timeline: Timeline
    ) -> messages.Verdict | Judged:
        """Time kernel and reference in new processes. Return a verdict with pairs, or the failure."""
        judge = self._judges.of(request)
        self._activity.enter("checking")
        with closing(self._sandboxes.child(built)) as child:
            reference = self._sandboxes.child()
            answer = judge.time(request, child, built.setup, reference, self._entered)
            if not answer.pairs:
                return self._judged(child, answer, timeline)
            self._note_spans(answer, timeline)
            return answer

    def _judge_once(
        self,
        request: EvalRequest,
        built: Built,
        timeline: Timeline,
        child: Child,
        reservation: Reservation | None,
    ) -> Judged:
        learned = reservation.grow if reservation is not None else lambda: None
        judge = self._admitted(request, learned)
        judged: Judged | NoMemory
        try:
            judged = self._judge(request, built, judge, child, timeline)
        except NoMemory as error:  # The judge has ended.
            child.close()  # Frees its memory for the second try.
            judged = error
        if self._had_too_little(request, judged) and self._judges.start_over(request):
            judge = self._admitted(request, learned)
            with closing(self._sandboxes.child(built)) as another:
                warm_up([another], self._device.torch, built.setup, triton="triton" in request.source)
                judged = self._judge(request, built, judge, another, timeline)
            if isinstance(judged, Judged) and judged.failed_allocations:
                self._lacking.add(key_of(request))
        if isinstance(judged, NoMemory):
            raise judged
        self._judges.settle(judge)
        return judged

    def _admitted(self, request: EvalRequest, learned: Callable[[], None]) -> JudgeHandle:
        if not self._judges.is_warm(key_of(request)):
            self._activity.enter("admitting")
        return self._judges.of(request, learned)

    def _entered(self, stage: Stage) -> None:
        self._activity.enter(_PHASES[stage])

    def _had_too_little(self, request: EvalRequest, judged: Judged | NoMemory) -> bool:
        """Whether to judge again with all of the device's memory, which other tasks' judges may have held."""
        if isinstance(judged, NoMemory):
            return True
        if not self._device.is_cuda or (judged.measured and key_of(request) in self._lacking):
            return False
        return judged.lacked_memory

    def _judge(
        self, request: EvalRequest, built: Built, judge: JudgeHandle, child: Child, timeline: Timeline
    ) -> Judged:
        is_watched = self._device.is_cuda and request.protocol.precision == "fp32"
        seen = self._arithmetic_of(built) if is_watched else ()
        self._activity.enter("checking")
        with self._cores.timed(*judge.pids, child.init_pid):
            answer = judge.judge(request, child, built.setup, seen, self._entered)
        return self._judged(child, answer, timeline)

    def _judged(self, child: Child, answer: messages.Verdict, timeline: Timeline) -> Judged:
        measured = () if answer.outcome else answer.measured
        outcome = measured[0] if measured else answer.outcome or child.crash()
        child.close()
        self._note_spans(answer, timeline)
        return Judged(
            outcome=outcome,
            measured=measured,
            untried=answer.untried,
            failed_allocations=answer.failed_allocations,
            log=child.log,
            frames=answer.frames,
        )

    def _note_spans(self, answer: messages.Verdict, timeline: Timeline) -> None:
        timeline.extend(answer.spans)
        timeline.device_s += answer.device_s


def _about_untried(kinds: Sequence[str]) -> str:
    """A clause about the kinds of values for which there was no time, "" if there are none."""
    return f"For want of time it was not tried on values of the kind {', '.join(kinds)}." if kinds else ""
