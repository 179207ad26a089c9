"""Reads a worker's outputs in GPU memory as soon as the worker says that it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kbopt.evaluation.transport.cuda_api import (
    CudaError,
    driver,
    open_handle,
    runtime,
    segment_of,
    tensor_at,
)
from kbopt.evaluation.transport.cuda_inputs import INPUTS
from kbopt.evaluation.transport.layout import TensorSpec, bytes_at, view
from kbopt.evaluation.worker_messages import Place

_NUM_SPOT_CHECKS = 1024
"""Bytes of each output that are read when the clock stops (decision 35)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotChecks:
    """Bytes of each call's outputs. They are there once the event `done` has passed: wait for it first."""

    spot_checks: list[list[torch.Tensor]]
    done: torch.cuda.Event


class CudaReader:
    """Reads tensors from a worker's GPU memory, or from the `inputs` that it was given.

    `base` is the address of the inputs in the worker. Handles stay open until `close`.
    """

    def __init__(self, inputs: torch.Tensor, base: int) -> None:
        self._device = inputs.device
        self._base = base
        self._library = runtime()
        self._driver = driver()
        self._inputs = inputs
        self._segments: dict[str, torch.Tensor] = {}
        self.prepare_spot_check()

    def copy(self, place: Place) -> torch.Tensor:
        """Return a copy of the output that the worker has at `place`. Raises CudaError."""
        spec = place.spec
        if spec.size_bytes == 0:
            return torch.empty(spec.shape, dtype=spec.torch_dtype, device=self._device)
        copied = view(self._memory(place), spec, 0).clone()
        torch.cuda.synchronize(self._device)
        return copied

    def prepare_spot_check(self) -> None:
        """Choose at random which bytes the next spot checks read. No clock runs meanwhile."""
        self._shares = torch.rand(_NUM_SPOT_CHECKS, dtype=torch.float64, device=self._device)
        self._places: dict[TensorSpec, torch.Tensor] = {}
        torch.cuda.synchronize(self._device)

    def aim(self, calls: Sequence[Sequence[Place]]) -> Callable[[], SpotChecks]:
        """Return a function that reads the chosen bytes of each output that lies on the device.

        Nobody else knew before which bytes those are. The device serves this process once the worker's
        work is done or its turn is over. If an output was not finished by then, `saw` finds later that other
        bytes lie there. Raises CudaError.
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
        # The memory is allocated here, so that `look` waits for nothing but the device.
        seen = {at: torch.empty_like(index, dtype=torch.uint8) for at, index in indices.items()}
        nothing = torch.empty(0, dtype=torch.uint8, device=self._device)
        torch.cuda.synchronize(self._device)

        def look() -> SpotChecks:
            for at, index in indices.items():
                torch.index_select(segments[at], 0, index, out=seen[at])
            done = torch.cuda.Event(enable_timing=True)
            done.record()
            spot_checks = [[nothing] * len(outputs) for outputs in calls]
            for at, several in wanted.items():
                parts = seen[at].split([len(index) for _, _, index in several])
                for (call, number, _), part in zip(several, parts, strict=True):
                    spot_checks[call][number] = part
            return SpotChecks(spot_checks=spot_checks, done=done)

        return look

    def saw(self, place: Place, spot_check: torch.Tensor) -> bool:
        """Return whether the output still has the bytes of the spot check. Raises CudaError."""
        if not len(spot_check):
            return True
        return torch.equal(self._memory(place)[self._places_in(place.spec)], spot_check)

    def _places_in(self, spec: TensorSpec) -> torch.Tensor:
        if spec not in self._places:
            self._places[spec] = bytes_at(spec, self._shares)
        return self._places[spec]

    def _memory(self, place: Place) -> torch.Tensor:
        """Return the bytes of the worker's output in place, not a copy. Raises CudaError."""
        self._require_open({place.segment})
        segment, offset = self._find(place)
        return segment[offset : offset + place.spec.size_bytes]

    def _require_open(self, handles: set[str]) -> None:
        handles = handles - {INPUTS}
        try:
            self._map(handles)
        except CudaError:
            # Memory that the worker has freed since may still be mapped here, at the same place.
            self.close()
            self._map(handles)

    def _map(self, handles: set[str]) -> None:
        for handle in handles - self._segments.keys():
            opened = open_handle(self._library, handle)
            _, size = segment_of(self._driver, opened)
            self._segments[handle] = tensor_at(opened, size, self._device)

    def _find(self, place: Place) -> tuple[torch.Tensor, int]:
        """Return the open segment that an output lies in, and its offset there in bytes. Raises CudaError."""
        handle, offset, size_bytes = place.segment, place.offset, place.spec.size_bytes
        # `require_separate` tells an output from an input by its address, so the address has to be true.
        if handle == INPUTS and place.address != self._base + offset:
            raise CudaError("an output at another address than it lies at")
        segment = self._inputs if handle == INPUTS else self._segments[handle]
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
