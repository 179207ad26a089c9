"""What arithmetic fp32 tasks may compute in, as PyTorch's own switches say it.

Applied in every process that runs a reference, a candidate or a baseline, before their code is loaded. Under
`default` nothing is touched: a figure beside PyTorch's would otherwise not be the one that users see.
"""

from __future__ import annotations

import torch

from kbopt.core.types import Arithmetic


def apply(arithmetic: Arithmetic) -> None:
    """Switch TF32 on or off for products and convolutions on CUDA; `default` leaves PyTorch's own
    defaults.
    """
    if arithmetic != "default":
        torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
        torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"
