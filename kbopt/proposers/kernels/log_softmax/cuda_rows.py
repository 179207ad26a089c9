"""Logarithm of the softmax over one dimension: maximum and sum in one pass, then the values.

A dimension that is not the last is made the last by a copy.
"""
# seed: log_softmax/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 512, 1024, 2048, 4096, 8192, 16384
NUM_WARPS = 8  # tune: 2, 4, 8, 16, 32


@triton.jit
def log_softmax_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    most, total = -float("inf"), 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
        bigger = tl.maximum(most, tl.max(x, axis=0))
        shift = tl.where(tl.abs(bigger) == float("inf"), 0.0, bigger)
        total = total * tl.exp(most - shift) + tl.sum(tl.exp(x - shift), axis=0)
        most = bigger
    log_total = tl.log(total)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n)
        tl.store(y_ptr + row * n + at, x - most - log_total, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.movedim(self.dim, -1).contiguous()
        y = torch.empty_like(rows)
        n = rows.shape[-1]
        log_softmax_kernel[(rows.numel() // n,)](rows, y, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y.movedim(-1, self.dim)
