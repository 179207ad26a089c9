"""Calls of the candidate and of the reference: asks their workers, and reads the answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.admission import Admission, require_same_form
from kbopt.evaluation.judge.answers import require_form, require_separate, require_unchanged
from kbopt.evaluation.judge.link import CandidateDied, CandidateRaised
from kbopt.evaluation.judge.products import plain
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.task_code import ReferenceWorkerDied, TaskError
from kbopt.evaluation.judge.worker import Exchange, Worker
from kbopt.evaluation.sandbox.memory import is_out_of_memory
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import Operation

_BRIEF_NS = 20_000_000
"""Nanoseconds of a call that the reference's worker repeats, so that a verdict's forty calls cost it less
than a second. Longer calls are those of large tensors, which malloc maps anew each time."""


class Calls:
    """All calls of one judgement on one workload.

    `worker` is the candidate's. It has to be set before the first call. The candidate's answers need the
    form of `expected`. `device_s` adds up the seconds for which the device was used. `cores` has the number
    of cores that each of the candidate's blocks of calls kept busy.
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
        self._on_cpu = reference.device.type == "cpu"
        self.device_s = 0.0
        self.cores: list[float] = []
        self.expected = admission.expected

    def draw(self) -> Draw:
        return self._reference.draw(self._rng.getrandbits(62))

    def own_answer(self, draw: Draw) -> Output:
        """Return the reference's own answer. It gets a copy of the inputs, so that it cannot change them.

        Raises TaskError if the answer has another form than it had when the task was admitted.
        """
        with self._device_busy():
            answer = plain(self._reference, draw)
        require_same_form(answer, self.expected)
        return answer

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
            "them: with the reference's names and shapes they would be copied in"
        )

    @property
    def most_calls(self) -> int:
        """The number of calls in a block for whose inputs both workers have room.

        It is 1 if the protocol allows an output to reuse the memory of the previous one.
        """
        if self._protocol.outputs == "reusable":
            return 1
        workers, number = (self.worker, self._reference_worker), self._reference.number
        return min(worker.input_buffer.slots_of(number) for worker in workers)

    def of_reference(self, ask: Callable[[Worker], Exchange]) -> samples.Block:
        """Return the times of the reference's worker for the calls that `ask` asks of it.

        Raises TaskError if the worker fails, and OutOfMemoryError if it has no memory left.
        """
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
        self, operation: Operation, draws: list[Draw], chosen: list[int]
    ) -> tuple[Exchange, list[list[torch.Tensor]]]:
        """Have the candidate answer `draws` in one block. Return its answers to the `chosen` ones.

        On a CPU the reference's worker makes the same calls, unless they are long. An answer ends with the
        inputs that the reference writes to. Raises Refused if its form is wrong.
        """
        exchange = self.worker.exchange(operation, draws)
        if self._on_cpu and exchange.wall_ns < _BRIEF_NS:
            # Earlier calls decide where malloc places a call's tensors, and that decides how long it takes.
            self.of_reference(lambda worker: worker.exchange("run", draws))
        return exchange, self.outputs_of(exchange, draws, chosen)

    def outputs_of(
        self, exchange: Exchange, draws: list[Draw], chosen: list[int]
    ) -> list[list[torch.Tensor]]:
        """Check the form of all answers, and return those to the `chosen` draws. Raises Refused.

        Afterwards the candidate drops all of its answers.
        """
        worker = self.worker
        self.device_s += exchange.wall_ns / 1e9
        self.cores.append(exchange.cpu_ns / exchange.wall_ns)
        admission = self._admission
        inputs = (
            None
            if admission.aliases_inputs
            else range(worker.base, worker.base + worker.input_buffer.size_bytes)
        )
        require_separate(exchange.outputs, inputs, admission.kept)
        for output in exchange.outputs:
            require_form(output, self.expected, self._reference.device.type, self._reference.name_of)
        outputs = []
        for index in chosen:
            seen, given = worker.seen_inputs(exchange, index), draws[index].tensors
            written = self._reference.written
            outputs.append([*worker.read(exchange, index), *(seen[number].clone() for number in written)])
            for number in set(range(len(seen))).difference(written):
                require_unchanged(seen[number], given[number])
        worker.release()
        return outputs
