"""What sees each operation that PyTorch runs, in the judge and in a worker alike."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class EachOperation(TorchDispatchMode):  # type: ignore[misc]
    """A dispatch mode under which whatever `torch.compile` has compiled runs operation by operation.

    Otherwise Dynamo would trace into the mode's own method, and raise for a model with `fullgraph=True`.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: otherwise torch wraps the method, which imports torch._dynamo and takes 2 s."""
        return False

    def __enter__(self) -> Self:
        compiles = "torch._dynamo" in sys.modules
        self._stance: Any = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
        self._stance.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._stance.__exit__(*raised)
