"""Memory in which the referee hands inputs to a candidate without copying them twice.

A memory file, mapped by both. The referee fills it while the candidate is paused, at another place each
time, and looks at it again afterwards: an input that was written to shows. On CUDA see `cuda`.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Sequence

import torch

from kbopt.evaluation.layout import ALIGNMENT_BYTES, TensorSpec, aligned, view

_JITTER_STEPS = 64
_MAX_BYTES = 512 * 2**20


class Arena:
    """Room for `slots` sets of tensors of these `specs`. `fd` is the memory file, for the other process."""

    def __init__(self, specs: Sequence[TensorSpec], max_slots: int, minimum_bytes: int = 0) -> None:
        self.specs = tuple(specs)
        jitter_bytes = _JITTER_STEPS * ALIGNMENT_BYTES
        self._slot_bytes = sum(aligned(spec.size_bytes) + jitter_bytes for spec in specs) + ALIGNMENT_BYTES
        self.slots = max(1, min(max_slots, _MAX_BYTES // self._slot_bytes))
        size_bytes = max(self._slot_bytes * self.slots, minimum_bytes)
        self.fd = os.memfd_create("kbopt-inputs")
        os.ftruncate(self.fd, size_bytes)
        self._memory = mmap.mmap(self.fd, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.buffer = torch.frombuffer(self._memory, dtype=torch.uint8)

    @property
    def size_bytes(self) -> int:
        return self.buffer.numel()

    def fill(self, slot: int, tensors: Sequence[torch.Tensor], rng: random.Random) -> list[int]:
        """Copy `tensors` into `slot`, each at a random place of its own; their offsets in bytes."""
        offsets: list[int] = []
        at = slot * self._slot_bytes
        for spec, tensor in zip(self.specs, tensors, strict=True):
            at += ALIGNMENT_BYTES * rng.randrange(_JITTER_STEPS)
            view(self.buffer, spec, at).copy_(tensor)
            offsets.append(at)
            at += aligned(spec.size_bytes)
        return offsets

    def place(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Copy tensors of any kind one after the other from the start; their offsets in bytes."""
        offsets: list[int] = []
        at = 0
        for tensor in tensors:
            view(self.buffer, TensorSpec.of(tensor), at).copy_(tensor)
            offsets.append(at)
            at += aligned(TensorSpec.of(tensor).size_bytes)
        return offsets

    def views(self, offsets: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """The tensors at `offsets`, sharing the arena's memory."""
        return tuple(view(self.buffer, spec, at) for spec, at in zip(self.specs, offsets, strict=True))

    def close(self) -> None:
        os.close(self.fd)
