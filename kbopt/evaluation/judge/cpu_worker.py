"""A worker on a CPU: the judge pauses all of it around each block of calls, and reads its memory."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from kbopt.evaluation.judge.link import CandidateDied, Link
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.replies import called_of
from kbopt.evaluation.judge.worker import Exchange, Offsets, Worker
from kbopt.evaluation.messages import Done
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.input_buffer import CpuInputBuffer
from kbopt.evaluation.transport.layout import TensorSpec, copy_elements
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import Call, Free, Operation, Place

_LONGEST_BLOCK = 4
"""Calls in one block at most. The input buffer has room for so many sets of inputs, or fewer large ones."""


class CpuWorker(Worker):
    """A worker on a CPU. `init` is the process id of the sandbox's init process."""

    input_buffer: CpuInputBuffer

    def __init__(
        self,
        link: Link,
        init: int,
        references: Sequence[Reference],
        threads: int,
        rng: random.Random,
    ) -> None:
        self._init = init
        self._num_gone = 0
        self._last = (0, 0)  # The workload of the last block, and its number of calls.
        self._next: Offsets = ()
        super().__init__(link, references, threads, rng)

    def _make_input_buffer(self, specs: list[tuple[TensorSpec, ...]], init_bytes: int) -> CpuInputBuffer:
        device = self._reference.device
        return CpuInputBuffer(specs, _LONGEST_BLOCK, init_bytes, self._output_bytes, device)

    def _opened(self) -> None:
        self._pid = _only_child(self._init)

    def exchange(self, operation: Operation, draws: Sequence[Draw]) -> Exchange:
        """Have it answer `draws` in one block, and time that.

        All of its processes are paused while the inputs are written, and again once it says that it is done.
        The clock runs in between, less the time for which other processes had the core. The request lies
        there before, so that nothing but its init process and its own has to wake up. Raises CandidateForged
        if a process ran during a pause.
        """
        self._pause()
        offsets = self._fill(draws)
        cpu_ns = self._cpu_ns()
        num_gone = self._num_gone
        number = self.link.send(Call(operation=operation, offsets=offsets, workload=draws[0].workload))
        self._require_standing(self.link.stands())
        waited_ns = linux.displaced_ns(self._pid)
        self._running = True
        started = time.perf_counter_ns()
        with self.link.resumed():
            waited_ns += linux.displaced_ns()  # From here on the judge has nothing to do until the answer.
            reply = self.link.receive(number)
            wall_ns = time.perf_counter_ns() - started
        waited_ns = linux.displaced_ns(self._pid) + linux.displaced_ns() - waited_ns
        self._pause()
        if self._helpers():  # Nobody counts how long these wait.
            waited_ns = 0
        # Nobody knows how long a process that is gone kept a core busy, so all of the call counts.
        num_gone = (self._num_gone - num_gone) % 2**32
        cpu_ns = self._cpu_ns() - cpu_ns + num_gone * wall_ns
        called = called_of(reply, len(draws))
        return Exchange(
            outputs=called.outputs,
            wall_ns=samples.undisturbed_ns(wall_ns, waited_ns, cpu_ns),
            cpu_ns=cpu_ns,
            offsets=offsets,
            seen=called.seen,
        )

    def release(self) -> None:
        """Have it drop its outputs, and leave it paused.

        It learns where the inputs of the next block will lie if that is as long as the last one. So it has
        their tensors before it is timed, for which it would take 0.05 ms.
        """
        self._next = super()._choose(*self._last)
        self._resume()
        self.link.ask(Free(workload=self._last[0], offsets=self._next), Done)
        self._pause()

    def _choose(self, workload: int, num_calls: int) -> Offsets:
        offsets, self._next = self._next, ()
        if not offsets or self._last != (workload, num_calls):
            self._last, offsets = (workload, num_calls), super()._choose(workload, num_calls)
        return offsets

    def read(self, exchange: Exchange, call: int) -> list[torch.Tensor]:
        return [self._copy_out(place) for place in exchange.outputs[call].places]

    def _pause(self) -> None:
        if self._running:
            self._num_gone, stands = self.link.hold()
            self._require_standing(stands)
        self._running = False

    def _resume(self) -> None:
        if not self._running:
            self._require_standing(self.link.stands())
        super()._resume()

    def _require_standing(self, stands: bool) -> None:
        if not stands:
            raise CandidateForged("its processes go on while they are paused")

    def _copy_out(self, place: Place) -> torch.Tensor:
        try:
            return copy_elements(place.spec, partial(self._read_memory, place.address))
        except OSError as error:
            raise CandidateForged(f"an output at an address that cannot be read: {error}") from None

    def _read_memory(self, address: int, start: int, buffer: torch.Tensor) -> None:
        linux.read_memory(self._pid, address + start, buffer.data_ptr(), buffer.numel())

    def _helpers(self) -> list[int]:
        """Return the sandbox's processes besides the worker's, orphaned ones included."""
        return [pid for pid in linux.descendants(self._init) if pid != self._pid]

    def _cpu_ns(self) -> int:
        """Return the nanoseconds of processor time that all of the sandbox has used."""
        try:
            cpu_ns = linux.process_cpu_ns(self._pid)
        except OSError:
            raise CandidateDied from None
        for helper in self._helpers():
            with suppress(OSError):
                cpu_ns += linux.process_cpu_ns(helper)
        return cpu_ns


def _only_child(init: int) -> int:
    """Return the init process's child. Before candidate code is loaded, there is one only."""
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    if not children:
        raise CandidateDied
    return int(children[0])
