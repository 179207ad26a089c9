"""Imports a candidate once in a sandbox where compilers may run, so that what it compiles is on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from kbopt.core import codec
from kbopt.core.types import Precision
from kbopt.evaluation.gradients import starts_of
from kbopt.evaluation.kernelbench.loading import first_inputs, load_module
from kbopt.evaluation.messages import Build
from kbopt.evaluation.numerics import keeps_dtypes, placed
from kbopt.evaluation.transport.channel import Channel, Message
from kbopt.evaluation.transport.layout import flatten
from kbopt.evaluation.worker.candidate import CandidateError, describe_exception, load_candidate
from kbopt.leanbuild import extensions, gpu_code, inline

_BUILD_NICENESS = 10
_ABSENT = torch.device("cuda:0")
"""By its index: torch would ask the driver which one is meant otherwise."""


def build(channel: Channel) -> None:
    """Import the candidate once, so that whatever it compiles is on disk afterwards.

    With `task_source` its model is constructed and called too, as far as that is needed for what is compiled
    only then; on a GPU on tensors without memory. What that run meets is no verdict.
    """
    request: Build = codec.decode(Build, channel.receive())
    os.nice(_BUILD_NICENESS)  # Its compilers too: whoever holds the device is waited for.
    try:
        find_builds(request.setup)
        module = load_candidate(request.source)
        if request.task_source:
            _build_late(module, request)
        reply: Message = {"built": True, "whole": extensions.is_whole()}
    except CandidateError as error:
        reply = {"rejected_source": str(error), "lasting": error.is_syntax}
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
        reply = {"raised": describe_exception(error), "lasting": extensions.is_lasting(error)}
    channel.send(reply)


def _build_late(module: Any, request: Build) -> None:
    on_cuda = request.device != "cpu"
    try:
        with gpu_code.ahead_of_device(request.arch) if on_cuda else nullcontext():
            _call_once(
                module,
                request.task_source,
                request.precision,
                _ABSENT if on_cuda else torch.device("cpu"),
                request.setup,
                backward=request.backward and not on_cuda,
            )
    except Exception as error:
        if str(error).startswith(extensions.BUILD_FAILED):
            raise


def find_builds(setup: str) -> None:
    """Point compilers to where this candidate's builds lie, and load_inline to those that are there."""
    if setup:
        inline.install(extensions.Setup.decode(setup))


def _call_once(
    module: Any,
    task_source: str,
    precision: Precision,
    device: torch.device = _ABSENT,
    setup: str = "",
    *,
    backward: bool = False,
) -> None:
    """Construct and call the model as it will be measured: on a GPU that does not have to be there, inside
    `gpu_code.ahead_of_device`; on a CPU only if all is not there once the model is.
    """
    task = load_module("task", task_source, Path.cwd())
    place = partial(placed, precision=precision, device=device, keeps=keeps_dtypes(task))
    folder = Path(extensions.Setup.decode(setup).directory) if setup else Path.cwd()
    num_before = extensions.num_builds(folder)
    model = module.ModelNew(*tree_map_only(torch.Tensor, place, task.get_init_inputs()))
    if device.type == "cpu" and extensions.num_builds(folder) > num_before:
        return
    if isinstance(model, torch.nn.Module):
        _move(model, place)
    inputs = tree_map_only(torch.Tensor, place, first_inputs(task, task_source)())
    if backward:
        starts_of(model, *flatten(list(inputs)))  # Both passes, to see what has a gradient.
    else:
        with torch.no_grad():
            model(*inputs)


def _move(model: torch.nn.Module, place: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """`Module.to` swaps parameters in place, which those without memory refuse."""
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            moved = place(parameter)
            differentiable = parameter.requires_grad and moved.device.type == "cpu"
            setattr(part, name, torch.nn.Parameter(moved, requires_grad=differentiable))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, place(buffer))
