"""KernelBench's inputs of a task, drawn once and handed to each candidate's child.

Their seeds are public and the same for every candidate, and KernelBench draws them on the CPU: 0.3 s a
candidate for a small task, 24 s for a large one, in which a GPU would do nothing. So a process of its own
draws them before the device is needed, the supervisor keeps them (`drawn_inputs`), the referee copies one set
at a time to the device, and a child gets copies of that: what it does to them stays with it.
"""

from __future__ import annotations

import mmap
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from kbopt.evaluation import kernelbench
from kbopt.evaluation.arena import Arena, CpuArena
from kbopt.evaluation.cuda import CudaArena
from kbopt.evaluation.layout import Skeleton, TensorSpec, aligned, flatten, unflatten, view
from kbopt.evaluation.wire import Channel, ChannelClosed, Message, WireError

_MOST_SHARE = 0.125
"""Of the device's memory, for one set of a task."""
REPLY_LIMIT_BYTES = 16 * 2**20


def draw(channel: Channel) -> None:
    """Draw the sets of the task in the first message, as many at once as there are cores.

    Answers with skeleton and specs, and the descriptor of memory in which the sets lie one after the other;
    with `why` where they take more than `limit_bytes`, differ in shape, or cannot be drawn.
    """
    job = channel.receive()
    torch.set_num_threads(1)
    try:
        task, seeds = kernelbench.load_task(job["source"]), kernelbench.input_seeds(job["trials"])
        skeleton, tensors = _draw_one(task, seeds[0], job["precision"])
    except Exception as error:  # noqa: BLE001 - whatever the task raises, a child will meet it as well
        channel.send({"why": f"{type(error).__name__}: {error}"})
        return
    specs = [TensorSpec.of(tensor) for tensor in tensors]
    set_bytes = sum(aligned(spec.size_bytes) for spec in specs)
    if not set_bytes or set_bytes * len(seeds) > job["limit_bytes"]:
        channel.send({"why": f"{len(seeds)} sets of {set_bytes} bytes"})
        return
    fd = os.memfd_create("kbopt-public-inputs")
    os.ftruncate(fd, set_bytes * len(seeds))
    buffer = torch.frombuffer(mmap.mmap(fd, 0), dtype=torch.uint8)
    _lay(buffer, specs, 0, tensors)

    def draw_into(number: int) -> bool:
        drawn, others = _draw_one(task, seeds[number], job["precision"])
        if drawn != skeleton or [TensorSpec.of(t) for t in others] != specs:
            return False
        _lay(buffer, specs, number * set_bytes, others)
        return True

    if not _all_in_children(draw_into, range(1, len(seeds)), len(os.sched_getaffinity(0))):
        channel.send({"why": "sets of different shapes"})
        return
    raw_specs = [spec.to_json() for spec in specs]
    channel.send({"skeleton": skeleton, "specs": raw_specs, "size_bytes": set_bytes * len(seeds)}, [fd])


def _draw_one(task: kernelbench.Task, seed: int, precision: str) -> tuple[Skeleton, list[torch.Tensor]]:
    return flatten(kernelbench.draw_inputs(task, seed, precision, torch.device("cpu")))


def _lay(buffer: torch.Tensor, specs: list[TensorSpec], at: int, tensors: list[torch.Tensor]) -> None:
    for spec, tensor in zip(specs, tensors, strict=True):
        view(buffer, spec, at).copy_(tensor)
        at += aligned(spec.size_bytes)


def _all_in_children(work: Callable[[int], bool], numbers: range, most: int) -> bool:
    """Whether `work` returned True for every number, each in a forked process of its own."""
    waiting, running, succeeded = list(numbers), set[int](), True
    while waiting or running:
        while waiting and len(running) < most:
            number = waiting.pop()
            pid = os.fork()
            if pid == 0:
                done = False
                try:
                    done = work(number)
                finally:
                    os._exit(0 if done else 1)
            running.add(pid)
        pid, status = os.wait()
        running.discard(pid)
        succeeded &= status == 0
    return succeeded


@dataclass(frozen=True, kw_only=True)
class PublicInputs:
    """The referee's side: one set of inputs for each seed in host memory, and an arena with room for one.

    The arena takes the device's memory at its first use. On the way to a GPU a set is `staged` in page-locked
    memory, from where it is copied at the bus's speed.
    """

    skeleton: Skeleton
    sets: tuple[tuple[torch.Tensor, ...], ...]
    specs: tuple[TensorSpec, ...]
    device: torch.device
    staged: tuple[torch.Tensor, ...] = ()

    @classmethod
    def load(cls, header: Message, fd: int, device: torch.device) -> PublicInputs | None:
        """None where a set would take too much of the device's memory."""
        size_bytes = header["size_bytes"]
        specs = [TensorSpec.from_json(raw) for raw in header["specs"]]
        set_bytes = sum(aligned(spec.size_bytes) for spec in specs)
        staged: tuple[torch.Tensor, ...] = ()
        buffer = torch.frombuffer(mmap.mmap(fd, 0), dtype=torch.uint8)
        if device.type == "cuda":
            if set_bytes > _MOST_SHARE * torch.cuda.get_device_properties(device).total_memory:
                return None
            with suppress(RuntimeError):  # Where no memory can be locked, copies are slower.
                staged = tuple(
                    torch.empty(spec.shape, dtype=spec.torch_dtype, pin_memory=True) for spec in specs
                )
        sets, at = [], 0
        while at < size_bytes:
            tensors = []
            for spec in specs:
                tensors.append(view(buffer, spec, at))
                at += aligned(spec.size_bytes)
            sets.append(tuple(tensors))
        return cls(
            skeleton=header["skeleton"], sets=tuple(sets), specs=tuple(specs), device=device, staged=staged
        )

    @cached_property
    def arena(self) -> Arena:
        kind: type[Arena] = CudaArena if self.device.type == "cuda" else CpuArena
        return kind(self.specs, 1, 0, 0, self.device)

    @property
    def offer(self) -> Message:
        """What a child needs, beside the arena's descriptors, in order to ask for a set by its number."""
        specs = [spec.to_json() for spec in self.arena.specs]
        return {"arena": self.arena.ticket, "skeleton": self.skeleton, "specs": specs}

    @property
    def of_timing(self) -> list[Any]:
        """The set with which KernelBench times."""
        tensors = self.arena.views(self.lay_out(len(self.sets) - 1))
        return list(unflatten(self.skeleton, [tensor.clone() for tensor in tensors]))

    def lay_out(self, number: int) -> list[int]:
        """Copy a set into the arena; the offsets of its tensors in bytes."""
        tensors = self.sets[number]
        for to, tensor in zip(self.staged, tensors, strict=False):
            to.copy_(tensor)
        offsets = self.arena.choose(0, secrets.SystemRandom())
        self.arena.fill([offsets], [self.staged or tensors])
        self.arena.finish_filling()
        return offsets


def converse(channel: Channel, request: Message, public: PublicInputs | None, limit_s: float) -> Message:
    """Have a child judge by KernelBench's protocol, and hand it the inputs that it asks for.

    `{"raw": fields}`, or `{"late": True}`, or `{"died": True}`.
    """
    deadline = time.monotonic() + limit_s
    offer, fds = (public.offer, public.arena.fds) if public is not None else (None, ())
    try:
        channel.send({**request, "public": offer}, fds)
        while True:
            message = channel.receive(max(0.0, deadline - time.monotonic()))
            number = message.get("inputs")
            if number is None or public is None:
                return {"raw": message}
            if type(number) is not int or not 0 <= number < len(public.sets):
                return {"died": True}
            channel.send({"offsets": public.lay_out(number)})
    except TimeoutError:
        return {"late": True}
    except (ChannelClosed, WireError):
        return {"died": True}
