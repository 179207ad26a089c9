"""The shared input buffer on a GPU, and the gate behind which a batch of calls waits for its inputs.

The judge allocates both and the worker opens them, through CUDA's IPC handles.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property

import torch

from kbopt.evaluation.transport.cuda_api import (
    check,
    driver,
    export,
    open_handle,
    runtime,
    tensor_at,
)
from kbopt.evaluation.transport.input_buffer import InputBuffer

LONGEST_BATCH = 32
"""Calls of a block on a GPU, at the most."""
_FLUSH_BYTES = 256 * 2**20
_FLUSHES_BEFORE_GATE = 4
GATE_BYTES = 256
"""Behind the inputs: the number of the gate that was opened last, and of the one whose calls are done."""
DONE_BYTES = 128
"""From the gate on, where the latter lies."""
WAIT_UNTIL_REACHED = 0
"""CU_STREAM_WAIT_VALUE_GEQ."""
INPUTS = "inputs"
"""In place of a handle: the output lies in memory that the child was given and cannot export again."""
_MOST_INPUT_BUFFER_BYTES = 4 * 2**30
_ENOUGH_INPUT_BUFFER_BYTES = 2**30
_FEWEST_SLOTS = 4
"""The outputs of a block are kept beside its inputs, by the candidate and by the reference's worker, and a
judge for each task. So the input buffer has as many slots as go into a gigabyte, or a few in more."""


class CudaInputBuffer(InputBuffer):
    """GPU memory of the judge, exported to the child."""

    def _allocate(self, size_bytes: int) -> None:
        self._library = runtime()
        torch.cuda.set_device(self.device)
        torch.cuda.synchronize(self.device)
        self._driver = driver()
        self._gate = 0
        self._side = torch.cuda.Stream(self.device)
        address = ctypes.c_void_p()
        total_bytes = size_bytes + GATE_BYTES
        check(
            self._library.cudaMalloc(ctypes.byref(address), total_bytes), f"cudaMalloc of {total_bytes} bytes"
        )
        self._address = int(address.value or 0)
        self.buffer = tensor_at(self._address, size_bytes, self.device)
        tensor_at(self._address + size_bytes, GATE_BYTES, self.device).zero_()
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
        code = self._driver.cuStreamWaitValue32_v2(stream, self._done, self._gate, WAIT_UNTIL_REACHED)
        check(code, "cuStreamWaitValue32")

    def give_up(self) -> None:
        """Wait no more, for a child that did not say that it is done."""
        self._write(self._side, self._done)

    @property
    def _done(self) -> int:
        return self._address + self.size_bytes + DONE_BYTES

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
        enough_bytes = max(
            _ENOUGH_INPUT_BUFFER_BYTES, _FEWEST_SLOTS * max(self._most_slot_bytes, self._output_bytes)
        )
        return min(free_bytes // 8, _MOST_INPUT_BUFFER_BYTES, enough_bytes)


def attach(ticket: str, device: torch.device) -> torch.Tensor:
    """The buffer of a CudaInputBuffer, in the process that was sent its ticket."""
    handle, _, size = ticket.partition(":")
    return tensor_at(open_handle(runtime(), handle), int(size), device)
