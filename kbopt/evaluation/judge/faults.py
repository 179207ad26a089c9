"""Turns what goes wrong with a reference into errors that say whose fault it is and on which workload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kbopt.evaluation.judge.link import CandidateDied, CandidateRaised
from kbopt.evaluation.judge.reference import Reference
from kbopt.evaluation.judge.task_code import ReferenceWorkerDied, TaskError, TaskTooLarge
from kbopt.evaluation.sandbox.memory import REMEDY, gib, is_out_of_memory
from kbopt.evaluation.transport.cuda_api import CudaError
from kbopt.evaluation.transport.untrusted import CandidateForged


@contextmanager
def about(reference: Reference) -> Iterator[None]:
    """Prefix the messages of TaskError and of want of memory with the reference's workload.

    A message that names the workload already stays as it is.
    """
    where = reference.workload.where
    try:
        yield
    except TaskError as error:
        if where in str(error):
            raise
        raise type(error)(f"{where}{error}") from None
    except (RuntimeError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"
        if where in text or not is_out_of_memory(text):
            raise
        raise torch.OutOfMemoryError(f"{where}{error}") from None


class Faults:
    """Types the errors of a judge on `device`. Its process may hold `memory_bytes` of the host's memory."""

    def __init__(self, device: torch.device, memory_bytes: int) -> None:
        self._device = device
        self._memory_bytes = memory_bytes

    @contextmanager
    def typed(self) -> Iterator[None]:
        """Raise TaskError for whatever goes wrong inside with the reference or with its worker.

        If memory was short it is TaskTooLarge, and if the worker died it is ReferenceWorkerDied.
        """
        try:
            yield
        except CandidateDied:
            raise ReferenceWorkerDied("the reference's worker died") from None
        except (CandidateRaised, CandidateForged) as error:
            if isinstance(error, CandidateRaised) and is_out_of_memory(f"{error.kind} {error}"):
                reason = f"the reference's worker has no memory left: {error}"
                raise TaskTooLarge(reason) from None
            raise TaskError(f"the reference failed in its worker: {error}") from None
        except torch.OutOfMemoryError as error:
            raise self.too_large(str(error)) from None
        except CudaError as error:
            if "memory" not in str(error):
                raise
            raise self.too_large(str(error)) from None

    def too_large(self, text: str) -> TaskTooLarge:
        """Return the error that the task does not fit into memory. `text` says what was seen."""
        where, limit = "the device's memory", ""
        if self._device.type == "cpu":
            where = "the host's memory"
            limit = f" (the reference's process may use {gib(self._memory_bytes)})"
        return TaskTooLarge(
            f"admission test 'the reference runs' failed: it does not fit into {where} with a float64 answer "
            f"to compare with{limit}: {text}; {REMEDY}"
        )
