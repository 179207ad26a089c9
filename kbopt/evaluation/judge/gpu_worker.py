"""A worker on a GPU. Its processes can be paused, but not the kernels that run on the device.

So the judge reads bytes of the outputs when the worker says that it is done, and batches bound how long the
calls took.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from kbopt.evaluation.judge.cuda_reader import CudaReader, SpotChecks
from kbopt.evaluation.judge.link import Link
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.replies import batch_done_of, called_of, times_of
from kbopt.evaluation.judge.worker import Exchange, LateOutput, Offsets, Worker
from kbopt.evaluation.timing.pace import Pace
from kbopt.evaluation.transport.cuda_api import CudaError
from kbopt.evaluation.transport.cuda_inputs import LONGEST_BATCH, CudaInputBuffer
from kbopt.evaluation.transport.layout import TensorSpec
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import (
    Batch,
    Call,
    CallOutput,
    CountFailures,
    FailedAllocations,
    Operation,
    Place,
    Queued,
)

_PATIENCE_S = 0.1
"""Seconds until the gate opens although the calls of a batch are not all queued (decision 35). Queueing takes
2 to 15 ms. A call that itself waits for the device is never queued before its inputs are there."""
_SHORT_PATIENCE_S = 0.02
"""The same in seconds, for a request whose last two batches were not queued in time."""
_DONE_S = 1.0
"""Seconds until the device has done what a worker had waited for before it answered. Other processes may have
their turn first."""
_LARGE_BYTES = 2**30
"""Bytes of a request's inputs and outputs. Below, the device has room for what is kept."""
_ROOM = 3
"""Times as many bytes that a worker is left: for its outputs, copies and intermediate tensors."""


class GpuWorker(Worker):
    """A worker on a GPU. The judge's clock bounds the time of calls in a `batch`, not in an `exchange`.

    `pace` says for how long calls are held. If the worker `leads`, it is the reference's, and `pace` learns
    from its calls.
    """

    input_buffer: CudaInputBuffer

    def __init__(
        self,
        link: Link,
        references: Sequence[Reference],
        threads: int,
        rng: random.Random,
        pace: Pace,
        *,
        leads: bool,
    ) -> None:
        self._pace = pace
        self._leads = leads
        self._is_built = False
        self._num_late: Counter[tuple[str, int]] = Counter()
        self._late_outputs: dict[tuple[str, int, int], Sequence[CallOutput]] = {}
        super().__init__(link, references, threads, rng)

    def _make_input_buffer(self, specs: list[tuple[TensorSpec, ...]], init_bytes: int) -> CudaInputBuffer:
        device = self._reference.device
        return CudaInputBuffer(specs, LONGEST_BATCH, init_bytes, self._output_bytes, device)

    def _opened(self) -> None:
        self._reader = CudaReader(self.input_buffer.buffer, self.base)

    def build(self, source: str, setup: str) -> None:
        self._reader.close()  # The worker cannot free the stand-in's outputs while they are mapped here.
        super().build(source, setup)
        self._is_built = True

    def exchange(self, operation: Operation, draws: Sequence[Draw]) -> Exchange:
        """Have it answer `draws` in one block. Read bytes of the outputs once it says that it is done.

        `read` compares these bytes with those that are there later. The judge's time of an exchange says
        little, see `batch`.
        """
        self._resume()
        self._leave_room(draws)
        self._reader.prepare_spot_check()
        workload = draws[0].workload
        hold_ms = self._pace.hold_ms(workload) * len(draws)
        started = time.perf_counter_ns()
        offsets = self._fill(draws)
        # Processes take turns on the device in any order, so the worker might read before they are there.
        self.input_buffer.finish_filling()
        self.input_buffer.flush_cache()
        call = Call(operation=operation, offsets=offsets, workload=workload, hold_ms=hold_ms)
        called = called_of(self.link.receive(self.link.send(call)), len(draws))
        if self._leads and self._is_built and operation == "run":
            self._pace.learn(workload, called.queued_ns / 1e6 / len(draws))
        sight = self._aim(called.outputs)()
        sight.done.synchronize()
        wall_ns = time.perf_counter_ns() - started
        self._pause()
        return Exchange(
            outputs=called.outputs,
            native_ns=times_of(called.ns, len(draws)),
            wall_ns=wall_ns,
            offsets=offsets,
            seen=called.seen,
            spot_checks=sight.spot_checks,
        )

    def batch(
        self,
        operation: Queued,
        draws: Sequence[Draw],
        *,
        marked: bool = False,
        output_bytes: tuple[int, ...] = (),
    ) -> Exchange:
        """Have it answer `draws` with all of its work queued before the inputs are there.

        The calls wait at a gate in the worker's stream (decision 35). So the judge's time contains neither
        their queueing nor the device's turn to another process, and it scatters by far less than that of an
        `exchange`. If a call itself waits for the device, the gate opens after `_PATIENCE_S`. Its time then
        contains all of the launching, and also the search for its outputs unless they lie where those of the
        last such batch did.
        """
        self._resume()
        self._leave_room(draws)
        self._reader.prepare_spot_check()
        offsets = self._choose(draws[0].workload, len(draws))
        request = Batch(
            operation=operation,
            workload=draws[0].workload,
            offsets=offsets,
            gate=self.input_buffer.next_gate(),
            marked=marked,
            output_bytes=output_bytes,
        )
        with self.link.asking(request) as number:
            exchange = self._fire(number, operation, draws, offsets)
        self._pause()
        return exchange

    def _fire(
        self,
        number: int,
        operation: Queued,
        draws: Sequence[Draw],
        offsets: Offsets,
    ) -> Exchange:
        outputs: Sequence[CallOutput] | None = None
        look: Callable[[], SpotChecks] | None = None
        workload = draws[0].workload
        is_known = self._num_late[operation, workload] > 1
        is_late = not self.link.answers_within(_SHORT_PATIENCE_S if is_known else _PATIENCE_S)
        guess = self._late_outputs.pop((operation, workload, len(draws)), None) if is_late else None
        try:
            if not is_late:
                outputs = self._outputs_of(number, len(draws))
                look = self._aim(outputs)
            elif guess is not None:
                with suppress(CandidateForged):  # The worker may have freed that memory since.
                    look = self._aim(guess)
        finally:
            begun = self.input_buffer.open_gate(offsets, [draw.tensors for draw in draws])
        try:
            if look is None:
                outputs = guess = self._outputs_of(number, len(draws))
                look = self._aim(outputs)
            self.input_buffer.await_done()
            sight = look()
            if outputs is None:
                outputs = self._outputs_of(number, len(draws))
            times = batch_done_of(self.link.receive(number), len(draws))
            _require_passed(sight.done)
            if is_late and outputs != guess:
                sight = self._aim(outputs)()
                sight.done.synchronize()
        except BaseException:
            self.input_buffer.give_up()
            raise
        self._num_late[operation, workload] = self._num_late[operation, workload] + 1 if is_late else 0
        if is_late:
            self._late_outputs[operation, workload, len(draws)] = outputs
        return Exchange(
            outputs=outputs,
            is_late=is_late,
            native_ns=times,
            wall_ns=int(begun.elapsed_time(sight.done) * 1e6),
            offsets=offsets,
            spot_checks=sight.spot_checks,
        )

    def read(self, exchange: Exchange, call: int) -> list[torch.Tensor]:
        places = exchange.outputs[call].places
        copies = [self._copy_out(place) for place in places]
        for place, spot_check in zip(places, exchange.spot_checks[call], strict=True):
            if not self._reader.saw(place, spot_check):
                raise LateOutput
        return copies

    def failed_allocations(self) -> int:
        """Return how often its process found no room on the device. cuDNN then takes another algorithm."""
        self._resume()
        failed = self.link.ask(CountFailures(), FailedAllocations)
        self._pause()
        return failed.count

    def close(self) -> None:
        self._reader.close()
        super().close()

    def _leave_room(self, draws: Sequence[Draw]) -> None:
        """Free the memory that torch's allocator keeps here for later, if the worker may lack it."""
        wanted_bytes = len(draws) * (draws[0].size_bytes + self._output_bytes)
        if wanted_bytes < _LARGE_BYTES:
            return
        free_bytes, _ = torch.cuda.mem_get_info(self._reference.device)
        if free_bytes < _ROOM * wanted_bytes:
            torch.cuda.empty_cache()

    def _pause(self) -> None:
        if self._running:
            self.link.pause()
        self._running = False

    def _aim(self, outputs: Sequence[CallOutput]) -> Callable[[], SpotChecks]:
        """Prepare the spot checks, see `CudaReader.aim`. Raises CandidateForged if outputs cannot be read.

        An answer with more outputs than the reference's is skipped, because its form is wrong anyway.
        """
        most = max(1, self._num_outputs)
        try:
            return self._reader.aim(
                [answer.places if len(answer.places) <= most else () for answer in outputs]
            )
        except (CudaError, ValueError) as error:
            raise CandidateForged(f"an output that cannot be read: {error}") from None

    def _outputs_of(self, number: int, num_calls: int) -> Sequence[CallOutput]:
        return called_of(self.link.receive(number), num_calls).outputs

    def _copy_out(self, place: Place) -> torch.Tensor:
        try:
            return self._reader.copy(place)
        except (CudaError, ValueError) as error:
            raise CandidateForged(f"an output that cannot be read: {error}") from None


def _require_passed(event: torch.cuda.Event) -> None:
    """Require that the worker's stream has come as far as its answer says. Raises CandidateForged."""
    until = time.monotonic() + _DONE_S
    while not event.query():
        if time.monotonic() > until:
            raise CandidateForged("it says that its calls are done, and its stream does not")
