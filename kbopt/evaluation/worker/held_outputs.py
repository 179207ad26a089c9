"""The outputs that a worker holds until the judge has read them, and where they lie.

On a GPU the judge reads outputs in place, so it opens their memory in its own process. CUDA refuses that for
stream-ordered memory (`cudaMallocAsync`), managed memory and mapped host memory. Such outputs are copied, and
the copy belongs to the call that is timed: if it came after the call, the judge could read what was written
after the end of the timer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from kbopt.evaluation.timing.cuda_timer import CudaTimer
from kbopt.evaluation.transport.cuda_api import CudaError
from kbopt.evaluation.transport.layout import LayoutError, TensorSpec, flatten, unflatten
from kbopt.evaluation.worker_messages import CallOutput, Place

_NOT_SHARED = (
    "CUDA does not share an output's memory with another process, which has to read it. Leave PyTorch's "
    "allocator as it is, without expandable segments, and return the same kind of memory in each call"
)


class HeldOutputs:
    """Holds outputs and describes them. `cuda` is None on a CPU, where nothing is copied.

    `copies` says that the model returned memory that CUDA does not share.
    """

    def __init__(self, cuda: CudaTimer | None) -> None:
        self._cuda = cuda
        self._outputs: list[Any] = []
        self._originals: dict[int, torch.Tensor] = {}
        self.copies = False

    def hold(self, outputs: Sequence[Any]) -> tuple[CallOutput, ...]:
        """Hold the outputs of calls until `free`, and describe each."""
        self._outputs += outputs
        return tuple(map(self._describe, outputs))

    def hold_copied(self, outputs: Sequence[Any]) -> tuple[CallOutput, ...]:
        """Hold the outputs of calls that are over, and first copy what CUDA does not share."""
        held = self.hold([self._shared(output) for output in outputs])
        if self.copies:
            torch.cuda.synchronize()
        return held

    def free(self) -> None:
        self._outputs.clear()
        self._originals.clear()

    def copying(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return the call with the copies that it needs, if one was needed before: in the first check. To
        look for them takes the host time, which a call that waits for the device would pay for.
        """
        return partial(self._copied, call) if self.copies else call

    def _copied(self, call: Callable[[], Any]) -> Any:
        return self._shared(call())

    def _shared(self, output: Any) -> Any:
        """Return the output, with a copy in place of each tensor that CUDA does not share."""
        if self._cuda is None:
            return output
        try:
            skeleton, tensors = flatten(output)
        except LayoutError:  # `_describe` says what is wrong with the form.
            return output
        apart = [tensor.is_cuda and not self._cuda.shares(tensor.data_ptr()) for tensor in tensors]
        if not any(apart):
            return output
        self.copies = True
        copies = [self._copy(one) if copy else one for one, copy in zip(tensors, apart, strict=True)]
        return unflatten(skeleton, copies)

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy. The tensor is kept, so that no later output of the model can take its memory."""
        copy = tensor.clone()
        self._originals[copy.data_ptr()] = tensor
        return copy

    def _describe(self, output: Any) -> CallOutput:
        try:
            skeleton, tensors = flatten(output)
        except LayoutError as error:
            return CallOutput(unusable=str(error))
        return CallOutput(skeleton=skeleton, places=tuple(map(self._place, tensors)))

    def _place(self, tensor: torch.Tensor) -> Place:
        address, segment, offset = tensor.data_ptr(), "", 0
        if self._cuda is not None and tensor.is_cuda:
            try:
                segment, offset = self._cuda.locate(address)
            except CudaError as error:
                raise CudaError(f"{error}: {_NOT_SHARED}") from None
        # The model's own memory says whether two outputs share it.
        return Place(
            address=self._originals.get(address, tensor).data_ptr(),
            spec=TensorSpec.of(tensor),
            device=tensor.device.type,
            segment=segment,
            offset=offset,
        )
