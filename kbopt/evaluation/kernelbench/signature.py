"""Describes a task's inputs on torch's meta device, without memory for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kbopt.evaluation.kernelbench.protocol import load_task


def describe_inputs(source: str) -> str:
    """Return the tensors of `get_inputs()`, such as `float32[16, 1024], int64[16]`, or "" if it raises."""
    try:
        with torch.device("meta"):
            inputs = load_task(source).get_inputs()
    except Exception:  # noqa: BLE001 - a task's source may raise anything
        return ""
    return ", ".join(_described(inputs))


def _described(value: Any) -> Iterator[str]:
    if isinstance(value, torch.Tensor):
        yield f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _described(part)
    elif isinstance(value, dict):
        yield from _described(list(value.values()))
    else:
        yield repr(value)
