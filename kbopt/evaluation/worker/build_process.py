"""Imports a candidate once in a sandbox in which compilers may run, so that what it compiles is on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from kbopt.core.protocol import Precision
from kbopt.evaluation.gradients import starts_of
from kbopt.evaluation.kernelbench.loading import first_inputs, load_module
from kbopt.evaluation.messages import Build, BuildDone, Raised, SourceRefused
from kbopt.evaluation.numerics import keeps_dtypes, placed
from kbopt.evaluation.transport.channel import Channel
from kbopt.evaluation.transport.layout import flatten
from kbopt.evaluation.worker.candidate import failure_of, load_candidate
from kbopt.leanbuild import extensions, gpu_code, inline

_BUILD_NICENESS = 10
"""Niceness (nice(2)) of a build and its compilers: whoever is timed comes first."""
_ABSENT = torch.device("cuda:0")
"""The device of tensors without memory. It has an index, because without one torch asks the driver for it."""


def build(channel: Channel) -> None:
    """Answer `Build`: import the candidate once, so that whatever it compiles is on disk afterwards.

    If the request has a `task_source`, the model is constructed and called too, because some sources compile
    only then. For a GPU that happens on tensors without memory. Other errors of that run than failed builds
    are no verdict.
    """
    request: Build = channel.receive(Build)
    os.nice(_BUILD_NICENESS)
    try:
        find_builds(request.setup)
        module = load_candidate(request.source)
        if request.task_source:
            _build_late(module, request)
        answer: BuildDone | Raised | SourceRefused = BuildDone(whole=extensions.is_whole())
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
        answer = failure_of(error, lasting=extensions.is_lasting(error))
    channel.send(answer)


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
    """Have compilers and load_inline use the folder that `setup` names for this candidate's builds.

    If `setup` is "", nothing changes.
    """
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
    """Construct and call the model as it will be measured.

    A GPU does not have to be there: call this inside `gpu_code.ahead_of_device`. On a CPU the model is not
    called if its constructor has built something.
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
        starts_of(model, *flatten(list(inputs)))  # It runs both passes.
    else:
        with torch.no_grad():
            model(*inputs)


def _move(model: torch.nn.Module, place: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace parameters and buffers by moved ones. `Module.to` changes them in place, which tensors without
    memory refuse.
    """
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            moved = place(parameter)
            differentiable = parameter.requires_grad and moved.device.type == "cpu"
            setattr(part, name, torch.nn.Parameter(moved, requires_grad=differentiable))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, place(buffer))
