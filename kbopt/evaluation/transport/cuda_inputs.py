"""The shared input buffer on a GPU, and the gate at which a batch of calls waits for its inputs.

The judge allocates both, and the worker maps them, see `cuda_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from kbopt.evaluation.transport import cuda_memory
from kbopt.evaluation.transport.cuda_api import check, driver, tensor_at
from kbopt.evaluation.transport.input_buffer import InputBuffer

LONGEST_BATCH = 32
"""Calls in a batch on a GPU at most."""
_FLUSH_BYTES = 256 * 2**20
"""Bytes written to flush the L2 cache at least; at least twice the device's L2."""
_FLUSHES_BEFORE_GATE = 4
"""Flushes before the start event, which give the host time to queue what follows it."""
GATE_BYTES = 256
"""Bytes behind the inputs: first the number of the last open gate, then that of the gate whose calls are
done."""
DONE_BYTES = 128
"""Offset of the second number in the gate."""
WAIT_UNTIL_REACHED = 0
"""CU_STREAM_WAIT_VALUE_GEQ of the driver API: wait until the value is at least that given."""
INPUTS = "inputs"
"""In place of a handle: the output lies in the input buffer, which the worker cannot export again."""
_MOST_INPUT_BUFFER_BYTES = 4 * 2**30
_ENOUGH_INPUT_BUFFER_BYTES = 2**30
"""The input buffer has as many slots as fit into this, but at least `_FEWEST_SLOTS`, within
`_MOST_INPUT_BUFFER_BYTES`. Candidate and reference's worker also hold the outputs of as many calls."""
_FEWEST_SLOTS = 4


class CudaInputBuffer(InputBuffer):
    """An input buffer in GPU memory, which the judge allocates and the worker maps by `fds` and `ticket`."""

    def _allocate(self, size_bytes: int) -> None:
        torch.cuda.set_device(self.device)
        torch.cuda.synchronize(self.device)
        self._driver = driver()
        self._gate = 0
        self._side = torch.cuda.Stream(self.device)
        self._memory = cuda_memory.allocate(size_bytes + GATE_BYTES, _index(self.device))
        self._address = self._memory.address
        self.buffer = tensor_at(self._address, size_bytes, self.device)
        tensor_at(self._address + size_bytes, GATE_BYTES, self.device).zero_()
        self.fds = (self._memory.fd,)
        self.ticket = f"{size_bytes}:{self._memory.size_bytes}"

    def finish_filling(self) -> None:
        torch.cuda.synchronize(self.device)

    def flush_cache(self) -> None:
        """Queue a flush of the L2, which all processes share. Does not wait for it."""
        self._flush.zero_()

    def next_gate(self) -> int:
        """Return the number of the next gate. It is closed until `open_gate`."""
        self._gate += 1
        return self._gate

    def open_gate(
        self, places: Sequence[Sequence[int]], sets: Sequence[Sequence[torch.Tensor]]
    ) -> torch.cuda.Event:
        """Copy the inputs in, flush the L2 and open the gate, in this process's stream.

        Returns the event that marks the start of the batch. Its time ends at a later event of the same
        stream. The device's clock is used, because the host may look at its own too late. The flushes before
        the event give the host time to queue the rest, and the device time to switch to this process.
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
        """Have this process's stream wait until the worker's stream says that its calls are done.

        A worker that says so too early gains 1 to 2 us: this process gets the device no sooner (decision 35).
        """
        stream = torch.cuda.current_stream(self.device).cuda_stream
        code = self._driver.cuStreamWaitValue32_v2(stream, self._done, self._gate, WAIT_UNTIL_REACHED)
        check(code, "cuStreamWaitValue32")

    def give_up(self) -> None:
        """End the wait of `await_done` for a worker that never says that it is done."""
        self._write(self._side, self._done)

    @property
    def _done(self) -> int:
        return self._address + self.size_bytes + DONE_BYTES

    def _write(self, stream: torch.cuda.Stream, address: int) -> None:
        """Queue the write of the gate's number to `address` in `stream`."""
        code = self._driver.cuStreamWriteValue32_v2(stream.cuda_stream, address, self._gate, 0)
        check(code, "cuStreamWriteValue32")

    @cached_property
    def _flush(self) -> torch.Tensor:
        l2_bytes = torch.cuda.get_device_properties(self.device).L2_cache_size
        return torch.empty(max(_FLUSH_BYTES, 2 * l2_bytes), dtype=torch.uint8, device=self.device)

    def close(self) -> None:
        torch.cuda.synchronize(self.device)
        self._memory.free()

    def _max_bytes(self) -> int:
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        enough_bytes = max(
            _ENOUGH_INPUT_BUFFER_BYTES, _FEWEST_SLOTS * max(self._most_slot_bytes, self._output_bytes)
        )
        return min(free_bytes // 8, _MOST_INPUT_BUFFER_BYTES, enough_bytes)


def attach(fds: Sequence[int], ticket: str, device: torch.device) -> torch.Tensor:
    """Map a CudaInputBuffer by its descriptor and its ticket, which gives its size in bytes and that of its
    memory. Returns its bytes, uint8 of one dimension.
    """
    (fd,) = fds
    size_bytes, memory_bytes = map(int, ticket.split(":"))
    memory = cuda_memory.open_shared(fd, memory_bytes, _index(device))
    return tensor_at(memory.address, size_bytes, device)


def _index(device: torch.device) -> int:
    return device.index or 0
