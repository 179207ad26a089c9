"""A worker on a CPU: the judge pauses all of it around each block of calls, and reads its memory."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from kbopt.evaluation.judge.link import CandidateDied, Link
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.replies import Place, answers_of, seen_of, times_of
from kbopt.evaluation.judge.worker import Exchange, Worker
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.input_buffer import CpuInputBuffer
from kbopt.evaluation.transport.layout import TensorSpec, copy_elements
from kbopt.evaluation.transport.untrusted import CandidateForged

_LONGEST_BLOCK = 6
"""Calls in one block at most. The input buffer has room for so many sets of inputs, or fewer large ones."""
_NUM_CALIBRATIONS = 12
"""Blocks of each length whose median gives the cost of a request."""


class CpuWorker(Worker):
    """A worker on a CPU. `init` is the process id of the sandbox's init process.

    `overhead` is the cost of requests as another worker of the task measured it. If None, it is measured.
    """

    input_buffer: CpuInputBuffer

    def __init__(
        self,
        link: Link,
        init: int,
        references: Sequence[Reference],
        threads: int,
        rng: random.Random,
        overhead: samples.Overhead | None = None,
    ) -> None:
        self._init = init
        self._num_gone = 0
        self.overhead = overhead
        super().__init__(link, references, threads, rng)

    def _make_input_buffer(self, specs: list[tuple[TensorSpec, ...]], init_bytes: int) -> CpuInputBuffer:
        device = self._reference.device
        return CpuInputBuffer(specs, _LONGEST_BLOCK, init_bytes, self._output_bytes, device)

    def _opened(self, draw: Draw) -> None:
        self._pid = _only_child(self._init)
        self.overhead = self.overhead or self._calibrate(draw)

    def exchange(self, operation: str, draws: Sequence[Draw], **fields: Any) -> Exchange:
        """Have it answer `draws` in one block, and time that.

        All of its processes are paused while the inputs are written, and again once it says that it is done.
        The clock runs in between. Raises CandidateForged if a process ran during a pause.
        """
        self._pause()
        offsets = self._fill(draws)
        cpu_ns, displaced_ns = self._usage()
        num_gone = self._num_gone
        self._require_standing(self.link.stands())
        started = time.perf_counter_ns()
        self._running = True
        self.link.resume()
        reply = self.link.ask(operation, offsets=offsets, workload=draws[0].workload, **fields)
        wall_ns = time.perf_counter_ns() - started
        self._pause()
        cpu_after_ns, displaced_after_ns = self._usage()
        # Nobody knows how long a process that is gone kept a core busy, so all of the call counts.
        num_gone = (self._num_gone - num_gone) % 2**32
        cpu_after_ns += num_gone * wall_ns
        return Exchange(
            outputs=answers_of(reply, len(draws)),
            native_ns=times_of(reply, len(draws)),
            wall_ns=wall_ns,
            displaced_ns=self._displaced(displaced_after_ns - displaced_ns, wall_ns, cpu_after_ns - cpu_ns),
            cores=(cpu_after_ns - cpu_ns) / wall_ns,
            offsets=offsets,
            seen=seen_of(reply) if operation == "audit" else None,
        )

    def batch(
        self, operation: str, draws: Sequence[Draw], *, marked: bool = False, **fields: Any
    ) -> Exchange:
        raise ValueError("batches are for GPUs")

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

    def _displaced(self, waited_ns: int, wall_ns: int, cpu_ns: int) -> int:
        """Return how much of the wall time other processes of the machine took.

        A waiting time is believed only as far as the processor time leaves room for it. It is not believed
        at all if the sandbox has helper processes, because nobody counts how long these wait.
        """
        if self._helpers():
            return 0
        return min(waited_ns, max(0, wall_ns - cpu_ns))

    def _calibrate(self, draw: Draw) -> samples.Overhead:
        """Measure what requests cost besides the calls. No candidate's code is loaded yet."""
        costs: dict[int, float] = {}
        longest = self.input_buffer.slots
        for length in (1, longest):
            costs_ms = []
            for _ in range(_NUM_CALIBRATIONS):
                exchange = self.exchange("run", [draw] * length)
                costs_ms.append(exchange.block.outside_ms)
                self.release()
            costs[length] = median(costs_ms)
        return samples.Overhead.through(1, costs[1], longest, costs[longest])

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

    def _usage(self) -> tuple[int, int]:
        """Return two sums in nanoseconds: the processor time of all of the sandbox, and the time for which
        the worker's process and the judge waited for a core.
        """
        try:
            cpu_ns = linux.process_cpu_ns(self._pid)
        except OSError:
            raise CandidateDied from None
        for helper in self._helpers():
            with suppress(OSError):
                cpu_ns += linux.process_cpu_ns(helper)
        return cpu_ns, linux.displaced_ns(self._pid) + linux.displaced_ns()


def _only_child(init: int) -> int:
    """Return the init process's child. Before candidate code is loaded, there is one only."""
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    if not children:
        raise CandidateDied
    return int(children[0])
