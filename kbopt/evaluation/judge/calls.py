"""Calls of both models: what is asked of their workers, and how the answers are read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from kbopt.core.types import EvalProtocol
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import require_form, require_separate, require_unchanged
from kbopt.evaluation.judge.link import CandidateDied, CandidateRaised
from kbopt.evaluation.judge.reference import Draw, Output, Reference, ReferenceWorkerDied, TaskError
from kbopt.evaluation.judge.worker import Exchange, Worker
from kbopt.evaluation.sandbox.memory import is_out_of_memory
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.untrusted import CandidateForged


class Calls:
    """Of one judgement. `worker` is the candidate's, set before the first call; `expected` is the form that
    its answers have to have. `device_s` counts the device's seconds, `cores` those that each block kept busy.
    """

    worker: Worker

    def __init__(
        self,
        reference: Reference,
        admission: Admission,
        protocol: EvalProtocol,
        reference_worker: Worker,
        rng: random.Random,
    ) -> None:
        self._reference = reference
        self._admission = admission
        self._protocol = protocol
        self._reference_worker = reference_worker
        self._rng = rng
        self.device_s = 0.0
        self.cores: list[float] = []
        self.expected = self.own_answer(self.draw())

    def draw(self) -> Draw:
        return self._reference.draw(self._rng.getrandbits(62))

    def own_answer(self, draw: Draw) -> Output:
        """What the reference itself gives, on a copy of the inputs so that it cannot change them."""
        with self._device_busy():
            return self._reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))

    def own_answer_or_none(self, draw: Draw) -> Output | None:
        try:
            return self.own_answer(draw)
        except TaskError:
            return None

    def exact_answer(self, draw: Draw) -> Output:
        with self._device_busy():
            return self._reference.run_exact(draw)

    @contextmanager
    def _device_busy(self) -> Iterator[None]:
        self._reference.synchronize()
        started = time.perf_counter()
        yield
        self._reference.synchronize()
        self.device_s += time.perf_counter() - started

    @property
    def misfit_note(self) -> str:
        misfits = self.worker.misfits
        if not misfits:
            return ""
        return (
            f". Its parameters fit the reference's in part ({misfits}), so that the seed alone filled "
            f"them: with "
            "the reference's names and shapes they would be copied in"
        )

    @property
    def most_calls(self) -> int:
        """How many inputs both workers have room for; one at a time where an output may be the memory of the
        last.
        """
        if self._protocol.outputs == "reusable":
            return 1
        workers, number = (self.worker, self._reference_worker), self._reference.number
        return min(worker.input_buffer.slots_of(number) for worker in workers)

    def of_reference(self, ask: Callable[[Worker], Exchange]) -> samples.Block:
        """What the worker that runs the reference took for what `ask` asks it."""
        worker = self._reference_worker
        try:
            exchange = ask(worker)
            worker.release()
        except (CandidateDied, CandidateRaised, CandidateForged) as error:
            if isinstance(error, CandidateDied):
                raise ReferenceWorkerDied("the reference's worker ended while it was timed") from None
            if isinstance(error, CandidateRaised) and is_out_of_memory(f"{error.kind} {error}"):
                raise torch.OutOfMemoryError(str(error)) from None
            raise TaskError(f"the reference failed while it was timed: {error}") from None
        self.device_s += exchange.wall_ns / 1e9
        return exchange.block

    def call(
        self, operation: str, draws: list[Draw], chosen: list[int]
    ) -> tuple[Exchange, list[list[torch.Tensor]]]:
        """Have the candidate answer `draws` in one block; its answers to the `chosen` ones."""
        exchange = self.worker.exchange(operation, draws)
        return exchange, self.outputs_of(exchange, draws, chosen)

    def outputs_of(
        self, exchange: Exchange, draws: list[Draw], chosen: list[int]
    ) -> list[list[torch.Tensor]]:
        """The answers to the `chosen` draws, in good form; the candidate drops all of them."""
        worker = self.worker
        self.device_s += exchange.wall_ns / 1e9
        self.cores.append(exchange.cores)
        admission = self._admission
        inputs = (
            None
            if admission.aliases_inputs
            else range(worker.base, worker.base + worker.input_buffer.size_bytes)
        )
        require_separate(exchange.outputs, inputs)
        for output in exchange.outputs:
            require_form(output, self.expected, self._reference.name_of)
        outputs = []
        for index in chosen:
            outputs.append(worker.read(exchange, index))
            if not admission.mutates_inputs:
                require_unchanged(worker.seen_inputs(exchange, index), draws[index].tensors)
        worker.release()
        return outputs
