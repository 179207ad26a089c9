"""Compiles kernels of TileLang and CuTe DSL without a device.

Both compile for a device that they are told of. TileLang keeps what it compiled in a cache of its own, so a
call on tensors without memory has it compile, and its launch is left out. CuTe DSL has no such cache: a
source exports its kernels to the candidate's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_FIRST_WITH_FEATURES = 9
"""From capability 9.0 on, wgmma and its successors belong to one architecture alone, `sm_90a`."""


def install(home: Path, arch: str) -> None:
    """Have both compile for capability `arch` (`9.0`), and TileLang keep its kernels in `home`."""
    (home / "tilelang").mkdir(parents=True, exist_ok=True)
    os.environ["TILELANG_CACHE_DIR"] = str(home / "tilelang")
    if arch:
        os.environ["TILELANG_DEFAULT_TARGET"] = json.dumps({"kind": "cuda", "arch": architecture(arch)})
        os.environ["CUTE_DSL_ARCH"] = architecture(arch)


def architecture(arch: str) -> str:
    """The name of the capability's architecture with all that it has: `sm_90a` of `9.0`."""
    major = int(arch.partition(".")[0])
    return f"sm_{arch.replace('.', '')}{'a' * (major >= _FIRST_WITH_FEATURES)}"


@contextlib.contextmanager
def without_launch() -> Iterator[None]:
    """Within the context TileLang's kernels are compiled when they are called, and do not run."""
    if "tilelang" not in sys.modules:
        yield
        return
    from tilelang.jit.kernel import JITKernel

    launch = JITKernel.__call__

    def compiled_only(self: Any, *inputs: Any, **_: Any) -> Any:
        return outputs(self.params, self.out_idx, inputs)

    JITKernel.__call__ = compiled_only
    try:
        yield
    finally:
        JITKernel.__call__ = launch


def outputs(params: Sequence[Any], indices: Sequence[int], inputs: Sequence[Any]) -> Any:
    """What a kernel that allocates the arguments at `indices` would return: tensors of their shapes, or None.

    A dimension that is no number has its size from the inputs, by its name.
    """
    import torch

    places = {index % len(params) for index in indices}
    sizes: dict[str, int] = {}
    given = [param for place, param in enumerate(params) if place not in places]
    for param, value in zip(given, inputs, strict=False):
        if isinstance(value, torch.Tensor):
            sizes |= {str(name): size for name, size in zip(param.shape, value.shape, strict=False)}
    device = next((value.device for value in inputs if isinstance(value, torch.Tensor)), None)
    made = [
        torch.empty(
            [sizes[str(size)] if str(size) in sizes else int(size) for size in params[place].shape],
            dtype=params[place].torch_dtype(),
            device=device,
        )
        for place in sorted(places)
    ]
    return made[0] if len(made) == 1 else made or None
