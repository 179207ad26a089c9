"""Root mean square normalisation over the last dimension, one program a row."""
# seed: rmsnorm/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 512, 1024, 2048, 4096, 8192, 16384
NUM_WARPS = 8  # tune: 2, 4, 8, 16, 32


@triton.jit
def rmsnorm_kernel(x_ptr, weight_ptr, y_ptr, n, eps, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * n
    squares = 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + first + at, mask=at < n, other=0.0)
        squares += tl.sum(x * x, axis=0)
    scale = 1.0 / tl.sqrt_rn(squares / n + eps)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + first + at, mask=at < n)
        weight = tl.load(weight_ptr + at, mask=at < n)
        tl.store(y_ptr + first + at, weight * (x * scale), mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, features: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        rmsnorm_kernel[(x.numel() // n,)](x, self.weight, y, n, self.eps, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
