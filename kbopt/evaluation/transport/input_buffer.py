"""Shared memory in which the judge hands inputs to a worker.

Both processes map it. The judge writes inputs at another place for each call, on a CPU while the worker is
paused. Afterwards it compares them, so that it finds an input that the candidate wrote to.
"""

from __future__ import annotations

import mmap
import operator
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from kbopt.evaluation.sandbox.init_process import INPUT_BUFFER_BYTES
from kbopt.evaluation.transport.layout import ALIGNMENT_BYTES, TensorSpec, aligned, view

_JITTER_STEPS = 64
"""Random steps of `ALIGNMENT_BYTES` before each tensor, so that calls see different addresses."""


class InputBuffer(ABC):
    """A buffer with room for one or more sets of input tensors, each in a slot.

    The workloads of a task use it in turns: `specs` are those of the current workload, at first number 0.
    `slots_of` says how many sets of a workload fit in: at most `max_slots`, and fewer if inputs or outputs
    (`output_bytes` at most) are large. The other process maps the buffer by `fds` or `ticket`, with `attach`.
    """

    fds: tuple[int, ...] = ()
    ticket: str = ""
    buffer: torch.Tensor

    def __init__(
        self,
        specs_of_each: Sequence[Sequence[TensorSpec]],
        max_slots: int,
        minimum_bytes: int,
        output_bytes: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self._specs_of_each = [tuple(specs) for specs in specs_of_each]
        self._bytes_of_each = [_slot_bytes(specs) for specs in specs_of_each]
        self._output_bytes = output_bytes
        self._most_slot_bytes = max(self._bytes_of_each)
        most_bytes = self._max_bytes()
        self._slots_of_each = [
            max(1, min(max_slots, most_bytes // max(slot_bytes, output_bytes)))
            for slot_bytes in self._bytes_of_each
        ]
        sizes = map(operator.mul, self._bytes_of_each, self._slots_of_each)
        self._allocate(max(*sizes, minimum_bytes))
        self.turn_to(0)

    def turn_to(self, workload: int) -> None:
        """Use the buffer for the workload of that number."""
        self.specs = self._specs_of_each[workload]
        self._slot_bytes = self._bytes_of_each[workload]

    def slots_of(self, workload: int) -> int:
        return self._slots_of_each[workload]

    @property
    def size_bytes(self) -> int:
        return self.buffer.numel()

    def choose(self, slot: int, rng: random.Random) -> tuple[int, ...]:
        """Return offsets in bytes for the tensors of one set in `slot`, with random distances."""
        offsets: list[int] = []
        at = slot * self._slot_bytes
        for spec in self.specs:
            at += ALIGNMENT_BYTES * rng.randrange(_JITTER_STEPS)
            offsets.append(at)
            at += aligned(spec.size_bytes)
        return tuple(offsets)

    def fill(self, places: Sequence[Sequence[int]], sets: Sequence[Sequence[torch.Tensor]]) -> None:
        """Copy sets of tensors to the offsets that were chosen for each set."""
        seen, given = self._pairs(places, sets)
        if seen:
            torch._foreach_copy_(seen, given)

    def _pairs(
        self, places: Sequence[Sequence[int]], sets: Sequence[Sequence[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        seen: list[torch.Tensor] = []
        given: list[torch.Tensor] = []
        for offsets, tensors in zip(places, sets, strict=True):
            views = self.views(offsets)
            if len(views) != len(tensors):
                raise ValueError(f"{len(tensors)} tensors for {len(views)} places")
            seen += views
            given += tensors
        return seen, given

    def place(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Copy tensors of any specs to the start of the buffer. Return their offsets in bytes."""
        offsets: list[int] = []
        at = 0
        for tensor in tensors:
            view(self.buffer, TensorSpec.of(tensor), at).copy_(tensor)
            offsets.append(at)
            at += aligned(TensorSpec.of(tensor).size_bytes)
        self.finish_filling()
        return offsets

    def views(self, offsets: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Return the current workload's tensors at `offsets`. They share the buffer's memory."""
        return tuple(view(self.buffer, spec, at) for spec, at in zip(self.specs, offsets, strict=True))

    def finish_filling(self) -> None:  # noqa: B027 - nothing to do for memory that is coherent
        """Wait until all copies are done."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _allocate(self, size_bytes: int) -> None: ...

    def _max_bytes(self) -> int:
        return INPUT_BUFFER_BYTES


def _slot_bytes(specs: Sequence[TensorSpec]) -> int:
    jitter_bytes = _JITTER_STEPS * ALIGNMENT_BYTES
    return sum(aligned(spec.size_bytes) + jitter_bytes for spec in specs) + ALIGNMENT_BYTES


class CpuInputBuffer(InputBuffer):
    """An input buffer in a memory file (memfd_create(2))."""

    def _allocate(self, size_bytes: int) -> None:
        fd = os.memfd_create("kbopt-inputs")
        os.ftruncate(fd, size_bytes)
        self.fds = (fd,)
        memory = mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.buffer = torch.frombuffer(memory, dtype=torch.uint8)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def attach(fds: Sequence[int]) -> torch.Tensor:
    """Map a CpuInputBuffer by its descriptor. Returns its bytes, uint8 of one dimension."""
    (fd,) = fds
    memory = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    os.close(fd)
    return torch.frombuffer(memory, dtype=torch.uint8)
