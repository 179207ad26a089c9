"""One model in a sandboxed child, as the judge plays it: inputs in, outputs out, both clocks.

The candidate and the reference each get a worker, so that whatever the machinery costs or favours, it
does to both.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from kbopt.core import codec
from kbopt.evaluation.judge.cuda_reader import CudaReader, SpotChecks
from kbopt.evaluation.judge.link import CandidateDied, Link
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.replies import (
    Answer,
    KernelTime,
    Place,
    Seen,
    answers_of,
    base_of,
    kernels_of,
    seen_of,
    times_of,
)
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.timing import samples
from kbopt.evaluation.transport.cuda_api import CudaError
from kbopt.evaluation.transport.cuda_inputs import LONGEST_BATCH, CudaInputBuffer
from kbopt.evaluation.transport.input_buffer import CpuInputBuffer, InputBuffer
from kbopt.evaluation.transport.layout import TensorSpec, aligned, copy_elements, dense
from kbopt.evaluation.transport.untrusted import MAX_TEXT, CandidateForged, one_line, text_of

_LONGEST_BLOCK = 6
_PATIENCE_S = 0.1
_SHORT_PATIENCE_S = 0.02
"""Until a batch's calls are queued, which takes 2 to 15 ms, or will not be before their inputs are there.
The shorter one where that was so twice running."""
_DONE_S = 1.0
"""Until the device has done what a child waited for before it answered: turns of other processes."""
_NUM_CALIBRATIONS = 12


class LateOutput(Exception):
    """An output changed after the candidate had said that it was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An answer, how long it took by the judge's clock, and where each call's inputs lay.

    `displaced_ns` of `wall_ns` the machine gave to other processes. `cores` is the processor time used per
    wall time. `is_late` says that a batch was not queued when its inputs came. `spot_checks` are what a GPU
    reader saw of each call's outputs when the clock stopped.
    """

    outputs: list[Answer]
    native_ns: list[int]
    wall_ns: int
    offsets: list[list[int]]
    displaced_ns: int = 0
    cores: float = 0.0
    is_late: bool = False
    seen: Seen | None = None
    spot_checks: Sequence[list[torch.Tensor]] = ()

    @property
    def block(self) -> samples.Block:
        return samples.Block(
            native_ms=tuple(max(1, ns) / 1e6 for ns in self.native_ns),
            wall_ms=self.wall_ns / 1e6,
            displaced_ms=self.displaced_ns / 1e6,
            cpu_ms=self.cores * self.wall_ns / 1e6,
            is_late=self.is_late,
        )


class Worker:
    """Drives one child. After `exchange` it is paused, with its outputs in its memory, until `release`.

    `overhead` is what requests cost on a CPU, where that is known from another worker of the task.
    """

    def __init__(
        self,
        link: Link,
        init: int,
        reference: Reference,
        threads: int,
        rng: random.Random,
        overhead: samples.Overhead | None = None,
    ) -> None:
        self.link = link
        self._init = init
        self._running = True
        self.misfits = ""
        self.takes_weights = False
        self._num_gone = 0
        self._reference = reference
        self._rng = rng
        self._num_late: Counter[str] = Counter()
        self._late_outputs: dict[tuple[str, int], list[Answer]] = {}
        draw = reference.draw(rng.getrandbits(62))
        specs = [TensorSpec.of(tensor) for tensor in draw.tensors]
        given = (*reference.init_tensors, *reference.parameters().values())
        init_bytes = sum(aligned(TensorSpec.of(dense(t)).size_bytes) for t in given)
        on_cuda = reference.device.type == "cuda"
        kind = CudaInputBuffer if on_cuda else CpuInputBuffer
        slots = LONGEST_BATCH if on_cuda else _LONGEST_BLOCK
        self.input_buffer: InputBuffer = kind(
            specs, slots, init_bytes, reference.output_bytes, reference.device
        )
        reply = link.ask(
            "open",
            self.input_buffer.fds,
            threads=threads,
            device=str(reference.device),
            input_buffer=self.input_buffer.ticket,
            skeleton=draw.skeleton,
            specs=[spec.to_json() for spec in specs],
        )
        self.base = base_of(reply)
        self._pid = 0 if on_cuda else _only_child(init)
        self._reader = CudaReader(self.input_buffer.buffer, self.base) if on_cuda else None
        self.overhead = None if on_cuda else overhead or self._calibrate(draw)
        self._require_sight(draw)

    def build(self, source: str, setup: str) -> None:
        """Load `source` and construct its `ModelNew` with the reference's weights.

        `setup` tells the child where its compiled parts lie, see `building.Built`.
        """
        self._resume()
        self.link.ask("load", source=source, setup=setup, protocol=codec.encode(self._reference.protocol))
        self.construct(self._reference.parameters())

    def construct(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Have it make its `ModelNew`, under the seed of the reference's weights, and then take `parameters`
        over if they are the model's own by name and shape: `takes_weights`. `misfits` says which are not
        where others are.
        """
        reference = self._reference
        tensors = (*reference.init_tensors, *parameters.values())
        specs = [TensorSpec.of(dense(t)).to_json() for t in tensors]
        self._resume()
        reply = self.link.ask(
            "construct",
            weight_seed=reference.weight_seed,
            keeps_state=reference.keeps_state,
            init_skeleton=reference.init_skeleton,
            num_init=len(reference.init_tensors),
            names=list(parameters),
            specs=specs,
            offsets=self.input_buffer.place([dense(t) for t in tensors]),
        )
        self.misfits = one_line(text_of(reply.get("misfits"), "a remark", MAX_TEXT), MAX_TEXT)
        self.takes_weights = reply.get("taken") is True

    def exchange(self, operation: str, draws: Sequence[Draw], **fields: Any) -> Exchange:
        """Have it answer `draws` in one block. Afterwards all of it is paused, and outputs can be read out
        of its memory. On a CPU nothing can be computed before or after the time that the clock runs.
        `fields` belong to the operation.
        """
        if self._reader is not None:
            return self._exchange_on_gpu(operation, draws, self._reader, fields)
        return self._exchange_paused(operation, draws, fields)

    def _exchange_paused(self, operation: str, draws: Sequence[Draw], fields: dict[str, Any]) -> Exchange:
        """Everything of it is paused while the inputs are written, and from the moment it says that it is
        done. The clock runs in between.
        """
        self._pause()
        offsets = self._fill(draws)
        cpu_ns, displaced_ns = self._usage()
        num_gone = self._num_gone
        self._require_standing(self.link.stands())
        started = time.perf_counter_ns()
        self._running = True
        self.link.resume()
        reply = self.link.ask(operation, offsets=offsets, **fields)
        wall_ns = time.perf_counter_ns() - started
        self._pause()
        cpu_after_ns, displaced_after_ns = self._usage()
        # Processes that it started and that are gone kept cores busy for no one knows how long.
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

    def _exchange_on_gpu(
        self,
        operation: str,
        draws: Sequence[Draw],
        reader: CudaReader,
        fields: dict[str, Any],
    ) -> Exchange:
        """What runs on a GPU cannot be paused. So outputs are looked at when it says that it is done, and
        compared with what is there later. How long that took says little: batches show it.
        """
        self._resume()
        reader.prepare_spot_check()
        started = time.perf_counter_ns()
        offsets = self._fill(draws)
        # Processes take turns on the device in any order: what is not there yet might be read by the child.
        self.input_buffer.finish_filling()
        self.input_buffer.flush_cache()
        reply = self.link.ask(operation, offsets=offsets, **fields)
        outputs = answers_of(reply, len(draws))
        sight = self._aim(reader, outputs)()
        sight.done.synchronize()
        wall_ns = time.perf_counter_ns() - started
        self._pause()
        return Exchange(
            outputs=outputs,
            native_ns=times_of(reply, len(draws)),
            wall_ns=wall_ns,
            offsets=offsets,
            seen=seen_of(reply) if operation == "audit" else None,
            spot_checks=sight.spot_checks,
        )

    def _aim(self, reader: CudaReader, outputs: list[Answer]) -> Callable[[], SpotChecks]:
        """At no more outputs than the reference has: with more of them an answer is wrong anyway."""
        most = max(1, len(self._reference.output_sizes))
        try:
            return reader.aim([answer.places if len(answer.places) <= most else () for answer in outputs])
        except (CudaError, ValueError) as error:
            raise CandidateForged(f"an output that cannot be read: {error}") from None

    def batch(
        self, operation: str, draws: Sequence[Draw], *, marked: bool = False, **fields: Any
    ) -> Exchange:
        """Have it answer `draws` on a GPU with all of its work queued before the inputs are there.

        The calls wait at a gate in the child's stream. So neither queueing them nor turning to another
        process is in the judge's time, and it scatters by far less than around an `exchange`. A call that
        itself waits for the device is let through after a while, and all of that is in its time. So is
        finding its outputs, unless they lie where those of the last such batch did.
        """
        input_buffer, reader = self.input_buffer, self._reader
        if not isinstance(input_buffer, CudaInputBuffer) or reader is None:
            raise ValueError("batches are for GPUs")
        self._resume()
        reader.prepare_spot_check()
        offsets = self._choose(len(draws))
        gate = input_buffer.next_gate()
        with self.link.asking(operation, gate=gate, offsets=offsets, marked=marked, **fields) as number:
            exchange = self._fire(input_buffer, reader, number, operation, draws, offsets)
        self._pause()
        return exchange

    def _fire(
        self,
        input_buffer: CudaInputBuffer,
        reader: CudaReader,
        number: int,
        operation: str,
        draws: Sequence[Draw],
        offsets: list[list[int]],
    ) -> Exchange:
        outputs: list[Answer] | None = None
        look: Callable[[], SpotChecks] | None = None
        is_known = self._num_late[operation] > 1
        is_late = not self.link.answers_within(_SHORT_PATIENCE_S if is_known else _PATIENCE_S)
        guess = self._late_outputs.pop((operation, len(draws)), None) if is_late else None
        try:
            if not is_late:
                outputs = self._outputs_of(number, len(draws))
                look = self._aim(reader, outputs)
            elif guess is not None:
                with suppress(CandidateForged):  # Memory that it has let go of since.
                    look = self._aim(reader, guess)
        finally:
            begun = input_buffer.open_gate(offsets, [draw.tensors for draw in draws])
        try:
            if look is None:
                outputs = guess = self._outputs_of(number, len(draws))
                look = self._aim(reader, outputs)
            input_buffer.await_done()
            sight = look()
            if outputs is None:
                outputs = self._outputs_of(number, len(draws))
            times = times_of(self.link.receive(number), len(draws))
            _require_passed(sight.done)
            if is_late and outputs != guess:
                sight = self._aim(reader, outputs)()
                sight.done.synchronize()
        except BaseException:
            input_buffer.give_up()
            raise
        self._num_late[operation] = self._num_late[operation] + 1 if is_late else 0
        if is_late:
            self._late_outputs[operation, len(draws)] = outputs
        return Exchange(
            outputs=outputs,
            is_late=is_late,
            native_ns=times,
            wall_ns=int(begun.elapsed_time(sight.done) * 1e6),
            offsets=offsets,
            spot_checks=sight.spot_checks,
        )

    def _outputs_of(self, number: int, num_calls: int) -> list[Answer]:
        return answers_of(self.link.receive(number), num_calls)

    def _fill(self, draws: Sequence[Draw]) -> list[list[int]]:
        offsets = self._choose(len(draws))
        self.input_buffer.fill(offsets, [draw.tensors for draw in draws])
        return offsets

    def _choose(self, num_calls: int) -> list[list[int]]:
        return [self.input_buffer.choose(slot, self._rng) for slot in range(num_calls)]

    def _displaced(self, waited_ns: int, wall_ns: int, cpu_ns: int) -> int:
        """How much of the wall time other processes of the machine took.

        Waiting for a core is believed as far as the child's own processor time leaves room for it, and
        not at all where it has helper processes, whose time is not counted.
        """
        if self._helpers():
            return 0
        return min(waited_ns, max(0, wall_ns - cpu_ns))

    def profile(self, draw: Draw) -> list[KernelTime]:
        """What the child says of the kernels that it runs on `draw`. For the reader, like an audit."""
        self._resume()
        offsets = self._fill([draw])
        self.input_buffer.finish_filling()
        reply = self.link.ask("profile", offsets=offsets)
        self._pause()
        return kernels_of(reply)

    def read(self, exchange: Exchange, call: int) -> list[torch.Tensor]:
        """Copies of the tensors that one call returned, out of the child's memory. Raises LateOutput."""
        places = exchange.outputs[call].places
        copies = [self._copy_out(place) for place in places]
        if self._reader is not None:
            for place, spot_check in zip(places, exchange.spot_checks[call], strict=True):
                if not self._reader.saw(place, spot_check):
                    raise LateOutput
        return copies

    def seen_inputs(self, exchange: Exchange, call: int) -> tuple[torch.Tensor, ...]:
        """The inputs of one call as they are now, where the child could write to them."""
        return self.input_buffer.views(exchange.offsets[call])

    def release(self) -> None:
        """Have it drop its outputs, and keep it paused: somebody else is timed next."""
        self._resume()
        self.link.ask("free")
        self._pause()

    def _pause(self) -> None:
        if self._running and self._reader is not None:
            self.link.pause()
        elif self._running:
            self._num_gone, stands = self.link.hold()
            self._require_standing(stands)
        self._running = False

    def _resume(self) -> None:
        if self._running:
            return
        if self._reader is None:
            self._require_standing(self.link.stands())
        self._running = True
        self.link.resume()

    def _require_standing(self, stands: bool) -> None:
        if not stands:
            raise CandidateForged("its processes go on while they are paused")

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.input_buffer.close()

    def _calibrate(self, draw: Draw) -> samples.Overhead:
        """What requests cost on a CPU besides the calls, before candidate code is there."""
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

    def _require_sight(self, draw: Draw) -> None:
        """Prove on the stand-in, which copies its first tensor, that inputs arrive and outputs are seen."""
        exchange = self.exchange("run", [draw])
        if draw.tensors and not torch.equal(self.read(exchange, 0)[0], draw.tensors[0]):
            raise CandidateForged("outputs of the stand-in that are not those it was given")
        self.release()

    def _copy_out(self, place: Place) -> torch.Tensor:
        if self._reader is not None:
            try:
                return self._reader.copy(place)
            except (CudaError, ValueError) as error:
                raise CandidateForged(f"an output that cannot be read: {error}") from None
        try:
            return copy_elements(place.spec, partial(self._read_memory, place.address))
        except OSError as error:
            raise CandidateForged(f"an output at an address that cannot be read: {error}") from None

    def _read_memory(self, address: int, start: int, buffer: torch.Tensor) -> None:
        linux.read_memory(self._pid, address + start, buffer.data_ptr(), buffer.numel())

    def _helpers(self) -> list[int]:
        """Processes of the sandbox besides the child: its descendants, orphaned ones included."""
        return [pid for pid in linux.descendants(self._init) if pid != self._pid]

    def _usage(self) -> tuple[int, int]:
        """Nanoseconds of processor time of all of the sandbox; of waiting for a core, child and judge."""
        try:
            cpu_ns = linux.process_cpu_ns(self._pid)
        except OSError:
            raise CandidateDied from None
        for helper in self._helpers():
            with suppress(OSError):
                cpu_ns += linux.process_cpu_ns(helper)
        return cpu_ns, linux.displaced_ns(self._pid) + linux.displaced_ns()


def _require_passed(event: torch.cuda.Event) -> None:
    """Raises CandidateForged for a child that has answered, while its stream has not come that far."""
    until = time.monotonic() + _DONE_S
    while not event.query():
        if time.monotonic() > until:
            raise CandidateForged("it says that its calls are done, and its stream does not")


def _only_child(init: int) -> int:
    """The init process's child, which is the only one before candidate code is loaded."""
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    if not children:
        raise CandidateDied
    return int(children[0])
