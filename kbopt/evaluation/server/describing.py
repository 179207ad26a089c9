"""Describes a task without a candidate: whether it can be scored, and what it takes."""

from __future__ import annotations

from contextlib import nullcontext

from kbopt.core.evaluations import Admitted, EvalRequest
from kbopt.evaluation import messages
from kbopt.evaluation.server.budget import Reservation
from kbopt.evaluation.server.cores import Cores
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judges import Judges, key_of
from kbopt.evaluation.server.turns import Turns


class Describing:
    """Asks judges about their tasks. It takes the lease itself.

    On a GPU it waits for one of `turns`, so that a task's description and its candidates follow each other.
    On a CPU the caller holds one.
    """

    def __init__(self, device: Device, judges: Judges, turns: Turns, cores: Cores) -> None:
        self._device = device
        self._judges = judges
        self._turns = turns
        self._cores = cores

    def report(self, request: EvalRequest, reservation: Reservation) -> Admitted:
        """Return what judging the request's task takes.

        Raises UserError if the task cannot be scored, and InfraError if the machine failed.
        """
        seen, admission_s = self.described(request, reservation)
        need = reservation.need
        return Admitted(
            device=self._device.name,
            seconds=admission_s,
            reference_ms=seen.reference_ms,
            floor_ms=seen.limits.floor_ms,
            reference_ops_ms=seen.limits.operations_ms,
            device_bytes=seen.device_bytes,
            host_bytes=need.own + need.judge,
            inputs_bytes=seen.inputs_bytes,
            outputs_bytes=seen.outputs_bytes,
            tolerance=seen.tolerance,
            keeps_state=seen.keeps_state,
        )

    def described(self, request: EvalRequest, reservation: Reservation) -> tuple[messages.Description, float]:
        """Return the judge's own answer, and the seconds that admission took. Raises as `report` does."""
        with self._judges.awaited(request):
            self._judges.prepare(request).result()
            turn = self._turns.of(key_of(request)) if self._device.is_cuda else nullcontext()
            with turn, self._judges.at_hand(request):
                judge = self._judges.of(request, reservation.grow)
                with self._cores.timed(*judge.pids):
                    seen = judge.describe()
                self._judges.settle(judge)
                return seen, judge.admission_s
