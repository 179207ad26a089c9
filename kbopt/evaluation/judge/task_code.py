"""Calls of what a task's source defines: whatever it raises is the task's fault, and not the machine's."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from kbopt.evaluation.kernelbench.loading import load_task_module
from kbopt.evaluation.sandbox.memory import is_out_of_memory
from kbopt.evaluation.transport.layout import LayoutError, Skeleton, flatten

_FLOAT8_REMEDY = (
    "PyTorch has no such operation on floats of 8 bits here: convert them in forward, as by .float(), or "
    "use a device and an operation that takes them, such as torch._scaled_mm"
)
_RAISED = (BaseException,)
"""A script that is given as a task may end itself, or read a command line that is not its own. Nobody
interrupts a judge, so a KeyboardInterrupt is the task's as well."""


class TaskError(Exception):
    """The task itself cannot be scored. The message names the admission test that failed."""


class TaskTooLarge(TaskError):
    """Judging the task takes more memory than the device has, or than other processes leave of it."""


class ReferenceWorkerDied(TaskError):
    """The process of the reference's worker has ended. The supervisor finds out how."""


def load(source: str) -> Any:
    """Return the task's module. Raises TaskError."""
    try:
        module = load_task_module(source)
    except _RAISED as error:
        raise TaskError(f"the task's source cannot be loaded: {type(error).__name__}: {error}") from None
    for name in ("Model", "get_inputs", "get_init_inputs"):
        if not hasattr(module, name):
            raise TaskError(f"the task's source does not define {name}")
    return module


def guarded(what: str, call: Callable[[], Any], passed: type[Exception] = torch.OutOfMemoryError) -> Any:
    """Return what `call` returns. Raises TaskError, OutOfMemoryError and what is `passed`."""
    try:
        return call()
    except (torch.OutOfMemoryError, TaskError, passed):
        raise
    except _RAISED as error:
        text = f"{type(error).__name__}: {error}"[:1000]
        if is_out_of_memory(text):
            raise torch.OutOfMemoryError(f"{what} {text}") from None
        if "not implemented for 'Float8" in text:
            text += f"; {_FLOAT8_REMEDY}"
        raise TaskError(f"admission test 'the reference runs' failed: {what} {text}") from None


def is_of_task(error: BaseException) -> bool:
    """Return whether the task's own code was running when the exception was raised."""
    path = getattr(sys.modules.get("task"), "__file__", None)
    return any(frame.f_code.co_filename == path for frame, _ in traceback.walk_tb(error.__traceback__))


def flattened(value: Any, what: str) -> tuple[Skeleton, list[torch.Tensor]]:
    """Return the skeleton and the tensors of what a task returned. Raises TaskError."""
    try:
        return flatten(value)
    except (LayoutError, RecursionError) as error:
        reason = error if isinstance(error, LayoutError) else "value that holds itself"
        raise TaskError(
            f"{what} gives a {reason}; tensors, numbers, strings, and lists, tuples and dicts of them work"
        ) from None


def arguments_of(what: str, call: Callable[[], Any]) -> tuple[Skeleton, list[torch.Tensor]]:
    """Return the same of the arguments that `call`, a function of the task, returns."""
    return flattened(guarded(f"{what} raised", lambda: list(call())), what)
