"""GPU memory shared between the referee and a child, and the clock inside the child, for CUDA devices.

Inputs lie in memory that the referee allocated and the child opened; outputs are read by the referee where
the child left them, the moment it says that it is done. Both go through CUDA's IPC handles.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch

from kbopt.evaluation.arena import Arena
from kbopt.evaluation.cuda_api import (
    CudaError,
    allocation_of,
    check,
    clock_khz,
    driver,
    export,
    open_handle,
    runtime,
    segment_of,
    tensor_at,
)
from kbopt.evaluation.layout import TensorSpec, bytes_at, view
from kbopt.evaluation.replies import Place

LONGEST_VOLLEY = 32
"""Calls of a block on a GPU, at the most."""
_FLUSH_BYTES = 256 * 2**20
_HOLD_MS = 0.4
"""How long the child's stream is busy while it queues a call's kernels, so that its event pair measures the
device's work and not Python's. Who makes it longer hides launching, up to what the host's clock shows."""
_FLUSHES_BEFORE_GATE = 4
_GATE_BYTES = 256
"""Behind the inputs: the number of the gate that was opened last, and of the one whose calls are done."""
_DONE_BYTES = 128
"""From the gate on, where the latter lies."""
_WAIT_UNTIL_REACHED = 0
"""CU_STREAM_WAIT_VALUE_GEQ."""
_NUM_GLANCES = 1024
_NUM_JOINS = 11
_INPUTS = "inputs"
"""In place of a handle: the output lies in memory that the child was given and cannot export again."""
_MOST_ARENA_BYTES = 4 * 2**30
_ENOUGH_ARENA_BYTES = 2**30
_FEWEST_SLOTS = 4
"""The outputs of a block are kept beside its inputs, by the candidate and by the reference's player, and a
referee for each task. So the arena has as many slots as go into a gigabyte, or a few in more."""


class CudaArena(Arena):
    """GPU memory of the referee, exported to the child."""

    def _allocate(self, size_bytes: int) -> None:
        self._library = runtime()
        torch.cuda.set_device(self.device)
        torch.cuda.synchronize(self.device)
        self._driver = driver()
        self._gate = 0
        self._side = torch.cuda.Stream(self.device)
        address = ctypes.c_void_p()
        total_bytes = size_bytes + _GATE_BYTES
        check(
            self._library.cudaMalloc(ctypes.byref(address), total_bytes), f"cudaMalloc of {total_bytes} bytes"
        )
        self._address = int(address.value or 0)
        self.buffer = tensor_at(self._address, size_bytes, self.device)
        tensor_at(self._address + size_bytes, _GATE_BYTES, self.device).zero_()
        self.ticket = f"{export(self._library, self._address)}:{size_bytes}"

    def finish_filling(self) -> None:
        torch.cuda.synchronize(self.device)

    def flush_cache(self) -> None:
        """Of the L2, which is one for all processes. Does not wait for it."""
        self._flush.zero_()

    def next_gate(self) -> int:
        """The number of a gate that is shut, for the child to wait at."""
        self._gate += 1
        return self._gate

    def open_gate(
        self, places: Sequence[Sequence[int]], sets: Sequence[Sequence[torch.Tensor]]
    ) -> torch.cuda.Event:
        """Fill, and let the child go on once all is there and no cache holds it.

        Returns the event between which and a later one of this process's stream the child's time lies. By
        the device's clock, because it can keep this process from looking at its own. The flushes before the
        event give time to queue what follows it, and the device to this process, whoever had it.
        """
        seen, given = self._pairs(places, sets)
        begun = torch.cuda.Event(enable_timing=True)
        for _ in range(_FLUSHES_BEFORE_GATE):
            self._flush.zero_()
        begun.record()
        if seen:
            torch._foreach_copy_(seen, given)
        self._flush.zero_()
        self._write(torch.cuda.current_stream(self.device), self._address + self.size_bytes)
        return begun

    def await_done(self) -> None:
        """Have this process's stream wait until the child's has passed its calls, without the host's help.

        A child may say so too early: this process is given the device no earlier for it.
        """
        stream = torch.cuda.current_stream(self.device).cuda_stream
        code = self._driver.cuStreamWaitValue32_v2(stream, self._done, self._gate, _WAIT_UNTIL_REACHED)
        check(code, "cuStreamWaitValue32")

    def give_up(self) -> None:
        """Wait no more, for a child that did not say that it is done."""
        self._write(self._side, self._done)

    @property
    def _done(self) -> int:
        return self._address + self.size_bytes + _DONE_BYTES

    def _write(self, stream: torch.cuda.Stream, address: int) -> None:
        """The gate's number, when the stream comes to it."""
        code = self._driver.cuStreamWriteValue32_v2(stream.cuda_stream, address, self._gate, 0)
        check(code, "cuStreamWriteValue32")

    @cached_property
    def _flush(self) -> torch.Tensor:
        l2_bytes = torch.cuda.get_device_properties(self.device).L2_cache_size
        return torch.empty(max(_FLUSH_BYTES, 2 * l2_bytes), dtype=torch.uint8, device=self.device)

    def close(self) -> None:
        torch.cuda.synchronize(self.device)
        self._library.cudaFree(self._address)

    def _max_bytes(self) -> int:
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        enough_bytes = max(_ENOUGH_ARENA_BYTES, _FEWEST_SLOTS * max(self._slot_bytes, self._output_bytes))
        return min(free_bytes // 8, _MOST_ARENA_BYTES, enough_bytes)


def attach(ticket: str, device: torch.device) -> torch.Tensor:
    """The buffer of a CudaArena, in the process that was sent its ticket."""
    handle, _, size = ticket.partition(":")
    return tensor_at(open_handle(runtime(), handle), int(size), device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Bytes of each call's outputs, and the event at which they have been read. Wait for that first."""

    glances: list[list[torch.Tensor]]
    done: torch.cuda.Event


class CudaReader:
    """Reads tensors out of a child's GPU memory, or out of the `inputs` it was given, at `base` of its own.

    Handles stay open until `close`.
    """

    def __init__(self, inputs: torch.Tensor, base: int) -> None:
        self._device = inputs.device
        self._base = base
        self._library = runtime()
        self._driver = driver()
        self._inputs = inputs
        self._segments: dict[str, torch.Tensor] = {}
        self.prepare_glance()

    def copy(self, place: Place) -> torch.Tensor:
        """A copy of the output that the child has at `place`. Raises CudaError."""
        spec = place.spec
        if spec.size_bytes == 0:
            return torch.empty(spec.shape, dtype=spec.torch_dtype, device=self._device)
        copied = view(self._memory(place), spec, 0).clone()
        torch.cuda.synchronize(self._device)
        return copied

    def prepare_glance(self) -> None:
        """Choose where `aim` aims next, outside of anybody's clock."""
        self._shares = torch.rand(_NUM_GLANCES, dtype=torch.float64, device=self._device)
        self._places: dict[TensorSpec, torch.Tensor] = {}
        torch.cuda.synchronize(self._device)

    def aim(self, calls: Sequence[Sequence[Place]]) -> Callable[[], Sight]:
        """What looks, when it is called, at bytes of every output of each call that lies on the device, at
        places that nobody knew before. Raises CudaError.

        The device is given to this process once the child's work is done or its turn is over. What was
        not finished by then shows when `saw` compares the bytes with those that are there later.
        """
        on_device = [
            (call, number, place)
            for call, outputs in enumerate(calls)
            for number, place in enumerate(outputs)
            if place.spec.size_bytes and place.device == self._device.type
        ]
        self._require_open({place.segment for _, _, place in on_device})
        wanted: dict[int, list[tuple[int, int, torch.Tensor]]] = {}
        segments: dict[int, torch.Tensor] = {}
        for call, number, place in on_device:
            segment, offset = self._find(place)
            segments[segment.data_ptr()] = segment
            index = offset + self._places_in(place.spec)
            wanted.setdefault(segment.data_ptr(), []).append((call, number, index))
        indices = {at: torch.cat([index for _, _, index in several]) for at, several in wanted.items()}
        # Whoever looks waits for nothing but the device: no memory is allocated then.
        seen = {at: torch.empty_like(index, dtype=torch.uint8) for at, index in indices.items()}
        nothing = torch.empty(0, dtype=torch.uint8, device=self._device)
        torch.cuda.synchronize(self._device)

        def look() -> Sight:
            for at, index in indices.items():
                torch.index_select(segments[at], 0, index, out=seen[at])
            done = torch.cuda.Event(enable_timing=True)
            done.record()
            glances = [[nothing] * len(outputs) for outputs in calls]
            for at, several in wanted.items():
                parts = seen[at].split([len(index) for _, _, index in several])
                for (call, number, _), part in zip(several, parts, strict=True):
                    glances[call][number] = part
            return Sight(glances=glances, done=done)

        return look

    def saw(self, place: Place, glance: torch.Tensor) -> bool:
        """Whether the output still is what `aim`'s look found."""
        if not len(glance):
            return True
        return torch.equal(self._memory(place)[self._places_in(place.spec)], glance)

    def _places_in(self, spec: TensorSpec) -> torch.Tensor:
        if spec not in self._places:
            self._places[spec] = bytes_at(spec, self._shares)
        return self._places[spec]

    def _memory(self, place: Place) -> torch.Tensor:
        """The bytes of the child's output themselves. Raises CudaError."""
        self._require_open({place.segment})
        segment, offset = self._find(place)
        return segment[offset : offset + place.spec.size_bytes]

    def _require_open(self, handles: set[str]) -> None:
        handles = handles - {_INPUTS}
        try:
            self._map(handles)
        except CudaError:
            # What the child had at a place before is mapped yet, though it may have let go of it.
            self.close()
            self._map(handles)

    def _map(self, handles: set[str]) -> None:
        for handle in handles - self._segments.keys():
            opened = open_handle(self._library, handle)
            _, size = segment_of(self._driver, opened)
            self._segments[handle] = tensor_at(opened, size, self._device)

    def _find(self, place: Place) -> tuple[torch.Tensor, int]:
        """The open segment that an output lies in, and where. Raises CudaError."""
        handle, offset, size_bytes = place.segment, place.offset, place.spec.size_bytes
        # By its address an output is told from an input.
        if handle == _INPUTS and place.address != self._base + offset:
            raise CudaError("an output at another address than it lies at")
        segment = self._inputs if handle == _INPUTS else self._segments[handle]
        # A read outside would end this process's own CUDA context.
        if not 0 <= offset <= offset + size_bytes <= segment.numel():
            raise CudaError("an output that lies outside of its memory")
        if offset % place.spec.torch_dtype.itemsize:
            raise CudaError(f"{place.spec.dtype} at offset {offset}, between two places for it")
        return segment, offset

    def close(self) -> None:
        torch.cuda.synchronize(self._device)
        for segment in self._segments.values():
            self._library.cudaIpcCloseMemHandle(segment.data_ptr())
        self._segments.clear()


class ChildSide:
    """What the child needs: the arena opened, outputs located, calls timed by events."""

    def __init__(self, ticket: str, device: torch.device) -> None:
        torch.cuda.set_device(device)
        torch.cuda.init()
        self._device = device
        self._library = runtime()
        self._driver = driver()
        torch.empty(1, device=device)
        self.buffer = attach(ticket, device)
        self._exported: dict[tuple[int, int], str] = {}
        self._context = ctypes.c_void_p()
        check(self._driver.cuCtxGetCurrent(ctypes.byref(self._context)), "cuCtxGetCurrent")
        self._marks = [_Marks() for _ in range(LONGEST_VOLLEY)]  # Before anybody can replace what makes them.
        self._synchronize: Callable[[], None] = torch.cuda.synchronize
        self._hold = partial(torch.cuda._sleep, int(_HOLD_MS * clock_khz(self._library, device)))
        self._join_ms = median(self._time_join() for _ in range(_NUM_JOINS))

    def locate(self, address: int) -> tuple[str, int]:
        """The handle of the segment in which `address` lies and the segment's number; the offset there."""
        if address == 0:
            return "", 0
        if 0 <= address - self.buffer.data_ptr() < self.buffer.numel():
            return _INPUTS, address - self.buffer.data_ptr()
        base, _ = segment_of(self._driver, address)
        allocation = base, allocation_of(self._driver, address)
        if allocation not in self._exported:
            self._exported[allocation] = f"{export(self._library, base)}:{allocation[1]}"
        return self._exported[allocation], address - base

    def forget(self) -> None:
        """Have the L2 keep nothing of what the candidate asked it to."""
        self._library.cudaCtxResetPersistingL2Cache()

    def timed(self, calls: Sequence[Callable[[], Any]]) -> tuple[list[Any], list[int]]:
        """The calls' results, and the nanoseconds of each on the device until no stream has work left.

        One event pair on the current stream would miss what a call leaves running on another one, which
        is a common mistake. The event over all streams comes later by what joining them takes. Several calls
        are queued one after the other, and waited for together.
        """
        results = []
        self._hold()
        for call, marks in self._with_marks(calls):
            results.append(self._marked(call, marks))
            self._record_all_done(marks)
        self._synchronize()
        return results, [self._nanoseconds(marks) for _, marks in self._with_marks(calls)]

    def waited_for(
        self, call: Callable[[], Any], clock: Callable[[], int] = time.perf_counter_ns
    ) -> tuple[list[Any], list[int]]:
        """The call's result, and the nanoseconds until the device has done all of its work, launching
        included.
        """
        self._synchronize()
        started = clock()
        result = call()
        self._synchronize()
        return [result], [clock() - started]

    def volley(
        self,
        gate: int,
        calls: Sequence[Callable[[], Any]],
        queued: Callable[[list[Any]], None],
        *,
        marked: bool,
    ) -> list[int]:
        """The calls behind a gate in the current stream, which says itself when it is done.

        Before the gate is open, `queued` is told of the results. The nanoseconds of each, where they are
        `marked`, or zeros.

        Two events a call take the device 6 us, so that leaving them out could pass for speed. A context that
        waits at a gate and in other streams for it keeps the device for whole turns of 2 ms.
        """
        address = self.buffer.data_ptr() + self.buffer.numel()
        stream = torch.cuda.current_stream(self._device).cuda_stream
        code = self._driver.cuStreamWaitValue32_v2(stream, address, gate, _WAIT_UNTIL_REACHED)
        check(code, "cuStreamWaitValue32")
        if marked:
            results = [self._marked(call, marks) for call, marks in self._with_marks(calls)]
        else:
            results = [call() for call in calls]
        code = self._driver.cuStreamWriteValue32_v2(stream, address + _DONE_BYTES, gate, 0)
        check(code, "cuStreamWriteValue32")
        queued(results)
        self._synchronize()
        if not marked:
            return [0] * len(calls)
        return [int(marks.start.elapsed_time(marks.end) * 1e6) for _, marks in self._with_marks(calls)]

    def _with_marks(self, calls: Sequence[Callable[[], Any]]) -> Iterable[tuple[Callable[[], Any], _Marks]]:
        return zip(calls, self._marks, strict=False)

    def _marked(self, call: Callable[[], Any], marks: _Marks) -> Any:
        marks.start.record()
        result = call()
        marks.end.record()
        return result

    def _nanoseconds(self, marks: _Marks) -> int:
        joined_ms = marks.start.elapsed_time(marks.all_done) - self._join_ms
        return int(max(marks.start.elapsed_time(marks.end), joined_ms) * 1e6)

    def _record_all_done(self, marks: _Marks) -> None:
        code = self._driver.cuCtxRecordEvent(self._context, marks.all_done.cuda_event)
        check(code, "cuCtxRecordEvent")

    def _time_join(self) -> float:
        """Milliseconds between the two ends of a call that does nothing."""
        marks = self._marks[0]
        marks.end.record()
        self._record_all_done(marks)
        self._synchronize()
        return marks.end.elapsed_time(marks.all_done)


class _Marks:
    """The events of one call."""

    def __init__(self) -> None:
        self.start, self.end, self.all_done = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        self.all_done.record()  # Creates it.
