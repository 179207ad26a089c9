"""The clock inside a worker on a GPU: pairs of events around calls, single or behind the gate."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from kbopt.evaluation.transport.cuda_api import (
    allocation_of,
    check,
    clock_khz,
    driver,
    export,
    runtime,
    segment_of,
)
from kbopt.evaluation.transport.cuda_inputs import (
    DONE_BYTES,
    INPUTS,
    LONGEST_BATCH,
    WAIT_UNTIL_REACHED,
    attach,
)

_HOLD_MS = 0.4
"""How long the child's stream is busy while it queues a call's kernels, so that its event pair measures the
device's work and not Python's. Who makes it longer hides launching, up to what the host's clock shows."""
_NUM_JOINS = 11


class CudaTimer:
    """What the child needs: the input buffer opened, outputs located, calls timed by events."""

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
        self._marks = [_Marks() for _ in range(LONGEST_BATCH)]  # Before anybody can replace what makes them.
        self._synchronize: Callable[[], None] = torch.cuda.synchronize
        self._hold = partial(torch.cuda._sleep, int(_HOLD_MS * clock_khz(self._library, device)))
        self._join_ms = median(self._time_join() for _ in range(_NUM_JOINS))

    def locate(self, address: int) -> tuple[str, int]:
        """The handle of the segment in which `address` lies and the segment's number; the offset there."""
        if address == 0:
            return "", 0
        if 0 <= address - self.buffer.data_ptr() < self.buffer.numel():
            return INPUTS, address - self.buffer.data_ptr()
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

    def batch(
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
        code = self._driver.cuStreamWaitValue32_v2(stream, address, gate, WAIT_UNTIL_REACHED)
        check(code, "cuStreamWaitValue32")
        if marked:
            results = [self._marked(call, marks) for call, marks in self._with_marks(calls)]
        else:
            results = [call() for call in calls]
        code = self._driver.cuStreamWriteValue32_v2(stream, address + DONE_BYTES, gate, 0)
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
