"""Modules and libraries that the fork server loads ahead, because they would take each child seconds."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

_FOR_EXTENSIONS = ("torch.utils.cpp_extension",)
_FOR_CUDA = (
    *_FOR_EXTENSIONS,
    "torch._subclasses.fake_tensor",
    "torch._dynamo",  # The first operation on a fake tensor imports it, which takes 0.8 s.
    *("triton.language", "triton.experimental.gluon.nvidia.hopper"),  # Triton's first launch imports gluon.
)


def preload(device: str, skipped: Collection[str]) -> str | None:
    """Load what all children on `cpu` or `cuda` need, except the modules in `skipped`.

    Return the first module that makes the process unfit to fork, or None.
    """
    _warm_up()
    names = [name for name in (_FOR_EXTENSIONS if device == "cpu" else _FOR_CUDA) if name not in skipped]
    spoiler = spoiled_by(names)
    if spoiler is None and "triton.compiler" in sys.modules:
        _remember_triton_key()
    return spoiler


def spoiled_by(names: Sequence[str]) -> str | None:
    """Import modules once that would take each child seconds. Return the first one that makes the process
    unfit to fork, or None. A module that is missing or cannot be imported is skipped.
    """
    # cpp_extension asks torch at its import whether there is a GPU. NVML can answer. The CUDA runtime would
    # start threads and could not be used in children any more.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in names:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
            if not _is_fit_to_fork():
                return name
    return None


def _remember_triton_key() -> None:
    """Have Triton hash its own 300 MB once. Otherwise each process that launches a kernel does, for 1 s."""
    for name in ("triton.runtime.cache", "triton.compiler.compiler"):
        key = getattr(sys.modules.get(name), "triton_key", None)
        if key is not None:
            key()


def _is_fit_to_fork() -> bool:
    """Return whether this process is single-threaded and its children can use CUDA."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return False
    if (pid := os.fork()) == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    _, status = os.waitpid(pid, 0)
    return status == 0


def _warm_up() -> None:
    """Load libraries that torch loads at its first product, once for all forks."""
    square = torch.ones(8, 8)
    torch.nn.functional.gelu(square @ square)
    np.median(np.ones(3))
