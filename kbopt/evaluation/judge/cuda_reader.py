"""Reads a worker's outputs where they lie in GPU memory, the moment that it says that it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kbopt.evaluation.judge.replies import Place
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

_NUM_SPOT_CHECKS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotChecks:
    """Bytes of each call's outputs, and the event at which they have been read. Wait for that first."""

    spot_checks: list[list[torch.Tensor]]
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
        self.prepare_spot_check()

    def copy(self, place: Place) -> torch.Tensor:
        """A copy of the output that the child has at `place`. Raises CudaError."""
        spec = place.spec
        if spec.size_bytes == 0:
            return torch.empty(spec.shape, dtype=spec.torch_dtype, device=self._device)
        copied = view(self._memory(place), spec, 0).clone()
        torch.cuda.synchronize(self._device)
        return copied

    def prepare_spot_check(self) -> None:
        """Choose where `aim` aims next, outside of anybody's clock."""
        self._shares = torch.rand(_NUM_SPOT_CHECKS, dtype=torch.float64, device=self._device)
        self._places: dict[TensorSpec, torch.Tensor] = {}
        torch.cuda.synchronize(self._device)

    def aim(self, calls: Sequence[Sequence[Place]]) -> Callable[[], SpotChecks]:
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
        """Whether the output still is what `aim`'s look found."""
        if not len(spot_check):
            return True
        return torch.equal(self._memory(place)[self._places_in(place.spec)], spot_check)

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
        handles = handles - {INPUTS}
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
