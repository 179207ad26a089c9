"""The worker's clock on a GPU: a pair of CUDA events around each call, single or queued behind a gate."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch

from kbopt.evaluation.transport.cuda_api import (
    CudaError,
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

_NUM_JOINS = 11
"""Empty calls whose median gives the time to join all streams: 1.5 us with 0.1 us of jitter (decision 35)."""


class CudaTimer:
    """The CUDA side of a worker: it opens the input buffer, locates outputs and times calls by events.

    `fds` and `ticket` are the input buffer's, as `cuda_inputs.attach` reads them. Raises CudaError.
    """

    def __init__(self, fds: Sequence[int], ticket: str, device: torch.device) -> None:
        torch.cuda.set_device(device)
        torch.cuda.init()
        self._device = device
        self._library = runtime()
        self._driver = driver()
        torch.empty(1, device=device)
        self.buffer = attach(fds, ticket, device)
        self._exported: dict[tuple[int, int], str] = {}
        self._context = ctypes.c_void_p()
        check(self._driver.cuCtxGetCurrent(ctypes.byref(self._context)), "cuCtxGetCurrent")
        # Made before a candidate can replace torch's events.
        self._marks = [_Marks() for _ in range(LONGEST_BATCH)]
        self._synchronize: Callable[[], None] = torch.cuda.synchronize
        self._khz = clock_khz(self._library, device)
        self._join_ms = median(self._time_join() for _ in range(_NUM_JOINS))

    def locate(self, address: int) -> tuple[str, int]:
        """Return the segment that holds `address`, as "handle:number", and the offset in bytes in it.

        An address in the input buffer gives `INPUTS` as its segment, and address 0 gives an empty one.
        """
        if address == 0:
            return "", 0
        if 0 <= address - self.buffer.data_ptr() < self.buffer.numel():
            return INPUTS, address - self.buffer.data_ptr()
        base, _ = segment_of(self._driver, address)
        allocation = base, allocation_of(self._driver, address)
        if allocation not in self._exported:
            self._exported[allocation] = f"{export(self._library, base)}:{allocation[1]}"
        return self._exported[allocation], address - base

    def shares(self, address: int) -> bool:
        """Return whether CUDA lets another process open the memory at `address`."""
        try:
            self.locate(address)
        except CudaError:
            return False
        return True

    def forget(self) -> None:
        """Reset the lines that the candidate asked the L2 to keep (persisting accesses) to normal."""
        self._library.cudaCtxResetPersistingL2Cache()

    def timed(self, calls: Sequence[Callable[[], Any]], hold_ms: float) -> tuple[list[Any], list[int], int]:
        """Return the calls' results, the nanoseconds that each took on the device in all streams, and the
        nanoseconds for which they were queued.

        A pair of events on the current stream alone would miss work that a call leaves running on another
        stream. So a third event covers all streams of the context; the time to join them is taken off. All
        calls are queued before the host waits for them, while other work keeps the stream busy for `hold_ms`
        milliseconds. So the events measure the device's work and not Python's.
        """
        results = []
        torch.cuda._sleep(int(self._khz * hold_ms))
        started = time.perf_counter_ns()
        for call, marks in self._with_marks(calls):
            results.append(self._marked(call, marks))
            self._record_all_done(marks)
        queued_ns = time.perf_counter_ns() - started
        self._synchronize()
        return results, [self._nanoseconds(marks) for _, marks in self._with_marks(calls)], queued_ns

    def waited_for(
        self, call: Callable[[], Any], clock: Callable[[], int] = time.perf_counter_ns
    ) -> tuple[list[Any], list[int]]:
        """Return the call's result and its latency in nanoseconds, from launch until the device is idle."""
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
        """Queue the calls behind gate number `gate` in the current stream, and wait until they are done.

        The stream waits until the judge opens the gate, and itself writes the number that says that it is
        done. `queued` is called with the results as soon as all calls are queued. Returns the nanoseconds of
        each call if `marked`, else zeros: two events take the device 6 us, so a candidate that left them out
        would look faster. No event covers all streams here, because a context that waits at a gate and
        records one keeps the device for whole time slices of 2 ms (decision 35).
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
        """Return the milliseconds from an event on one stream to an event over all, with no work between."""
        marks = self._marks[0]
        marks.end.record()
        self._record_all_done(marks)
        self._synchronize()
        return marks.end.elapsed_time(marks.all_done)


class _Marks:
    """The events of one call: its start, its end on the current stream, and its end on all streams."""

    def __init__(self) -> None:
        self.start, self.end, self.all_done = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        self.all_done.record()  # Creates it.
