"""A model to be profiled: constructed and called as it is measured, but timed for no verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from kbopt.evaluation import numerics
from kbopt.evaluation.gradients import starts_of
from kbopt.evaluation.kernelbench.loading import load_module
from kbopt.evaluation.messages import ProfileCall
from kbopt.evaluation.numerics import keeps_dtypes, placed, placed_model, seed_everything
from kbopt.evaluation.passes import Gradients, call_of
from kbopt.evaluation.transport.layout import flatten, unflatten
from kbopt.evaluation.worker.build_process import find_builds
from kbopt.evaluation.worker.candidate import load_candidate
from kbopt.evaluation.worker.weights import take_over

_SEED = 42
_WARM_UPS = 3
"""Calls before the profiled one: the first compiles and tunes, the others find memory that it freed."""
_FLUSH_BYTES = 256 * 2**20
"""More than the L2 of any GPU, so that a profiled call finds its inputs in memory as a timed one does."""


class ProfiledCall:
    """Loads the sources at once, without the device; `prepare` needs it."""

    def __init__(self, job: ProfileCall) -> None:
        self._job = job
        self.device = torch.device(job.device)
        numerics.apply(job.protocol.arithmetic)
        torch.set_num_threads(job.threads)
        find_builds(job.setup)
        self._task = load_module("task", job.task_source, Path.cwd())
        self._module = load_candidate(job.source)
        self._model: Callable[..., Any]
        self._arguments: Sequence[Any]
        self._gradients: Gradients | None = None

    def prepare(self) -> None:
        """Construct the model with the reference's weights where they fit, draw inputs, and call it."""
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
        with self.device:  # Drawn on the host, gigabytes take a minute.
            inputs = task.get_inputs()
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
        """One call, after which the device is done."""
        with torch.no_grad():
            call_of(self._model, self._gradients, self._arguments)()
        self._synchronize()

    def flush(self) -> None:
        """On a GPU, push what a call would find in the L2 out of it."""
        if self.device.type == "cuda":
            torch.empty(_FLUSH_BYTES // 8, dtype=torch.int64, device=self.device).fill_(42)
            self._synchronize()

    def _constructed(self, kind: Callable[..., Any], init_inputs: Sequence[Any]) -> Any:
        seed_everything(_SEED)
        model = kind(*init_inputs)
        if isinstance(model, torch.nn.Module):
            precision, keeps = self._job.protocol.precision, keeps_dtypes(self._task)
            model = placed_model(model, precision, self.device, keeps=keeps)
            if self._job.protocol.eval_mode:
                model.eval()
        return model

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
