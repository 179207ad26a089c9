"""A model to be profiled. It is constructed and called as for a measurement, but no verdict depends on it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from kbopt.evaluation import numerics
from kbopt.evaluation.gradients import starts_of
from kbopt.evaluation.kernelbench.loading import first_inputs, load_module
from kbopt.evaluation.messages import CallBoth
from kbopt.evaluation.numerics import constructed, keeps_dtypes, placed, seed_everything, synchronize
from kbopt.evaluation.passes import Gradients, call_of
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.transport.layout import flatten, unflatten
from kbopt.evaluation.worker.build_process import find_builds
from kbopt.evaluation.worker.candidate import load_candidate
from kbopt.evaluation.worker.weights import take_over

_SEED = 42
"""Seed of weights and inputs, as in KernelBench. A profile is no verdict, so it is not secret."""
_WARM_UPS = 3
"""Calls before the profiled one: the first compiles and tunes, later ones reuse the memory that it freed."""
_FLUSH_BYTES = 256 * 2**20
"""Bytes that are written before a profiled call. No GPU has such a large L2, so the call finds its inputs in
memory, as a timed call does."""


class ProfiledCall:
    """A call of a model. The constructor loads the sources without the device; `prepare` needs the device.

    `fresh_pages` are the pages of host memory that the last call was the first to touch.
    """

    def __init__(self, job: CallBoth) -> None:
        self._job = job
        self.device = torch.device(job.device)
        numerics.apply(job.protocol.arithmetic)
        torch.set_num_threads(job.threads)
        linux.keep_freed_memory()
        find_builds(job.setup)
        self._task = load_module("task", job.task_source, Path.cwd())
        self._module = load_candidate(job.source)
        self._model: Callable[..., Any]
        self._arguments: Sequence[Any]
        self._gradients: Gradients | None = None
        self.fresh_pages = 0

    def prepare(self) -> None:
        """Construct the model, copy the reference's weights in if they fit, draw inputs, and warm up."""
        job, task = self._job, self._task
        place = partial(
            placed, precision=job.protocol.precision, device=self.device, keeps=keeps_dtypes(task)
        )
        seed_everything(_SEED)
        init_inputs = task.get_init_inputs()
        model = self._constructed(self._module.ModelNew, init_inputs)
        if isinstance(model, torch.nn.Module):
            reference = self._constructed(task.Model, init_inputs)
            take_over(model, reference.state_dict())
        self._model = model
        with self.device:  # To draw gigabytes on the host takes a minute.
            inputs = first_inputs(task, job.task_source)()
        self._arguments = tree_map_only(torch.Tensor, place, inputs)
        if job.protocol.backward:
            reference = self._constructed(task.Model, init_inputs)
            skeleton, tensors = flatten(list(self._arguments))
            start = starts_of(reference, skeleton, tensors)
            self._gradients = start.gradients
            self._arguments = unflatten(*start.with_gradients(skeleton, tuple(tensors)))
        for _ in range(_WARM_UPS):
            self.run()

    def run(self) -> None:
        """Make one call, and wait until the device is done."""
        touched = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.no_grad():
            call_of(self._model, self._gradients, self._arguments)()
        synchronize(self.device)
        self.fresh_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - touched

    def flush(self) -> None:
        """On a GPU, fill the L2 with other data, so that a call finds none of its own there."""
        if self.device.type == "cuda":
            torch.empty(_FLUSH_BYTES // 8, dtype=torch.int64, device=self.device).fill_(42)
            synchronize(self.device)

    def _constructed(self, kind: Callable[..., Any], init_inputs: Sequence[Any]) -> Any:
        keeps = keeps_dtypes(self._task)
        return constructed(kind, init_inputs, _SEED, self._job.protocol, self.device, keeps=keeps)
