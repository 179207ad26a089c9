"""The judge's side of one model in a sandboxed process: hands inputs over, reads outputs, and times calls.

The candidate and the reference each get a worker, so that both meet the same costs. `CpuWorker` and
`GpuWorker` say how calls are timed and outputs read.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from kbopt.evaluation.judge.admission import same_bits
from kbopt.evaluation.judge.link import Link
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.messages import Done
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.input_buffer import InputBuffer
from kbopt.evaluation.transport.layout import TensorSpec, aligned, dense
from kbopt.evaluation.transport.untrusted import CandidateForged
from kbopt.evaluation.worker_messages import (
    Call,
    CallOutput,
    Free,
    Instantiate,
    Instantiated,
    Kernels,
    KernelTime,
    Load,
    Open,
    Opened,
    Operation,
    Queued,
    Seen,
)

Offsets = tuple[tuple[int, ...], ...]
"""Where the inputs of each call lie in the input buffer, in bytes."""


class LateOutput(Exception):
    """An output changed after the candidate had said that it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The answers to one block of calls, and its times.

    `wall_ns` is the time of the block by the judge's clock. On a GPU `native_ns` are the times of the calls
    by the worker's clock; on a CPU there are none, and `cpu_ns` is the processor time of the sandbox.
    `offsets` says where each call's inputs lay in the input buffer. `is_late` says that a batch was not
    queued when its inputs came. `seen` is the audit, if it was one. `spot_checks` are the bytes of each
    call's outputs on a GPU when the clock stopped.
    """

    outputs: Sequence[CallOutput]
    native_ns: Sequence[int] = ()
    wall_ns: int
    offsets: Offsets
    cpu_ns: int = 0
    is_late: bool = False
    seen: Seen | None = None
    spot_checks: Sequence[list[torch.Tensor]] = ()

    @property
    def block(self) -> samples.Block:
        return samples.Block(
            native_ms=tuple(max(1, ns) / 1e6 for ns in self.native_ns),
            wall_ms=self.wall_ns / 1e6,
            cpu_ms=self.cpu_ns / 1e6,
            is_late=self.is_late,
        )


class Worker(ABC):
    """Drives one sandboxed process. After `exchange` it is paused and holds its outputs until `release`.

    `construct` sets `misfits`, `takes_weights` and `overwrites`. Methods raise the exceptions of
    `judge.link`, and CandidateForged.
    """

    def __init__(self, link: Link, references: Sequence[Reference], threads: int, rng: random.Random) -> None:
        """Open the input buffer in the process behind `link`. `references` are on the task's workloads."""
        self.link = link
        self._running = True
        self.misfits = ""
        self.takes_weights = self.overwrites = False
        self._references = references
        self._reference = reference = references[0]
        self._output_bytes = max(one.output_bytes for one in references)
        self._num_outputs = max(len(one.output_sizes) for one in references)
        self._rng = rng
        draw = reference.draw(rng.getrandbits(62))
        forms = [reference.form(draw), *(other.form() for other in references[1:])]
        given = (*reference.init_tensors, *reference.parameters().values())
        init_bytes = sum(aligned(TensorSpec.of(dense(t)).size_bytes) for t in given)
        self.input_buffer = self._make_input_buffer([form.specs for form in forms], init_bytes)
        opening = Open(
            threads=threads,
            device=str(reference.device),
            input_buffer=self.input_buffer.ticket,
            skeletons=tuple(form.skeleton for form in forms),
            specs=tuple(form.specs for form in forms),
        )
        self.base = link.ask(opening, Opened, self.input_buffer.fds).base
        self._opened()
        self._require_sight(draw)

    def build(self, source: str, setup: str) -> None:
        """Load `source` and construct its `ModelNew` with the reference's weights.

        `setup` tells the worker where the candidate's builds lie, see `building.Built`.
        """
        self._resume()
        self.link.ask(Load(source=source, setup=setup, protocol=self._reference.protocol), Done)
        self.construct(self._reference.parameters())

    def construct(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Have it construct `ModelNew` under the seed of the reference's weights, and copy `parameters` in.

        They are copied if the model's own have the same names and shapes; `takes_weights` says so, and
        `overwrites` that some had other values. If only some fit, `misfits` says which do not. Without
        `parameters` it keeps its own.
        """
        reference = self._reference
        tensors = (*reference.init_tensors, *parameters.values())
        self._resume()
        request = Instantiate(
            weight_seed=reference.weight_seed,
            keeps_state=reference.keeps_state,
            keeps_dtypes=reference.keeps_dtypes,
            gradients=tuple(one.gradients for one in self._references),
            init_skeleton=reference.init_skeleton,
            num_init=len(reference.init_tensors),
            names=tuple(parameters),
            specs=tuple(TensorSpec.of(dense(t)) for t in tensors),
            offsets=tuple(self.input_buffer.place([dense(t) for t in tensors])),
        )
        answer = self.link.ask(request, Instantiated)
        self.misfits, self.takes_weights = answer.misfits, answer.takes_weights
        self.overwrites = answer.overwrites

    @abstractmethod
    def exchange(self, operation: Operation, draws: Sequence[Draw]) -> Exchange:
        """Have it answer `draws`, all of one workload, in one block.

        Afterwards all of its processes are paused, and `read` can read the outputs in its memory.
        """

    def batch(
        self,
        operation: Queued,
        draws: Sequence[Draw],
        *,
        marked: bool = False,
        output_bytes: tuple[int, ...] = (),
    ) -> Exchange:
        """Have it answer `draws` with all of its work queued before the inputs are there. Only on a GPU.

        With `marked`, the worker times the calls too. Stand-ins return memory of `output_bytes`.
        """
        raise NotImplementedError("batches are for GPUs")

    @abstractmethod
    def read(self, exchange: Exchange, call: int) -> list[torch.Tensor]:
        """Return copies of the tensors that one call returned. Raises LateOutput if one has changed since."""

    def profile(self, draw: Draw) -> tuple[KernelTime, ...]:
        """Return the kernels of a call on `draw` as the worker reports them. Like an audit it is no proof."""
        self._resume()
        offsets = self._fill([draw])
        self.input_buffer.finish_filling()
        answer = self.link.ask(Call(operation="profile", offsets=offsets, workload=draw.workload), Kernels)
        self._pause()
        return answer.kernels

    def failed_allocations(self) -> int:
        """Return how often its process found no room for a tensor and went on, as it says; 0 on a CPU."""
        return 0

    def seen_inputs(self, exchange: Exchange, call: int) -> tuple[torch.Tensor, ...]:
        """Return the inputs of one call in the buffer, where the worker could write to them. No copies."""
        return self.input_buffer.views(exchange.offsets[call])

    def release(self) -> None:
        """Have it drop its outputs, and leave it paused, because another worker may be timed next."""
        self._resume()
        self.link.ask(Free(), Done)
        self._pause()

    def close(self) -> None:
        self.input_buffer.close()

    @abstractmethod
    def _make_input_buffer(self, specs: list[tuple[TensorSpec, ...]], init_bytes: int) -> InputBuffer:
        """Return a buffer for inputs of each workload's specs, or `init_bytes` of what constructs a model."""

    @abstractmethod
    def _opened(self) -> None:
        """Do what is left before a candidate's code is loaded. The worker has the input buffer open."""

    @abstractmethod
    def _pause(self) -> None:
        """Stop all of its processes, unless they are stopped already."""

    def _resume(self) -> None:
        if self._running:
            return
        self._running = True
        self.link.resume()

    def _fill(self, draws: Sequence[Draw]) -> Offsets:
        offsets = self._choose(draws[0].workload, len(draws))
        self.input_buffer.fill(offsets, [draw.tensors for draw in draws])
        return offsets

    def _choose(self, workload: int, num_calls: int) -> Offsets:
        """Choose where the inputs of a block of calls will lie."""
        self.input_buffer.turn_to(workload)
        return tuple(self.input_buffer.choose(slot, self._rng) for slot in range(num_calls))

    def _require_sight(self, draw: Draw) -> None:
        """Prove on the stand-in, which copies its first tensor, that inputs arrive and outputs are read."""
        exchange = self.exchange("run", [draw])
        if draw.tensors and not same_bits(self.read(exchange, 0)[0], draw.tensors[0]):
            raise CandidateForged("outputs of the stand-in that are not those it was given")
        self.release()
