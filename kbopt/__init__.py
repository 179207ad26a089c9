"""kbopt searches for faster GPU kernels: many explorers, one warm GPU, an evaluator that audits kernels."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Evaluator", "KernelGuide", "__version__"]


def __getattr__(name: str) -> Any:
    """`Evaluator` and `KernelGuide` on first use: the container and the service import this package too."""
    if name not in ("Evaluator", "KernelGuide"):
        raise AttributeError(f"module 'kbopt' has no attribute {name!r}")
    return getattr(importlib.import_module("kbopt.library"), name)
