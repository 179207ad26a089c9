"""Softmax over the last dimension, one program a row: maximum and sum in one pass, then the values."""
# seed: softmax/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 512, 1024, 2048, 4096, 8192, 16384
NUM_WARPS = 8  # tune: 2, 4, 8, 16, 32


@triton.jit
def softmax_kernel(x_ptr, y_ptr, n, temperature, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    most, total = -float("inf"), 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf")) / temperature
        bigger = tl.maximum(most, tl.max(x, axis=0))
        shift = tl.where(tl.abs(bigger) == float("inf"), 0.0, bigger)
        total = total * tl.exp(most - shift) + tl.sum(tl.exp(x - shift), axis=0)
        most = bigger
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n) / temperature
        tl.store(y_ptr + row * n + at, tl.exp(x - most) / total, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, temperature: float = 1.0):
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(f"this kernel takes a positive temperature, not {temperature}")
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        softmax_kernel[(x.numel() // n,)](x, y, n, self.temperature, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
