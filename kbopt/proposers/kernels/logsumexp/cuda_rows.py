"""Log of the sum of exponentials over the last dimension, one program a row, in one pass."""
# seed: logsumexp/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 512, 1024, 2048, 4096, 8192, 16384
NUM_WARPS = 8  # tune: 2, 4, 8, 16, 32


@triton.jit
def logsumexp_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    most, total = -float("inf"), 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
        bigger = tl.maximum(most, tl.max(x, axis=0))
        shift = tl.where(tl.abs(bigger) == float("inf"), 0.0, bigger)
        total = total * tl.exp(most - shift) + tl.sum(tl.exp(x - shift), axis=0)
        most = bigger
    shift = tl.where(tl.abs(most) == float("inf"), 0.0, most)
    tl.store(y_ptr + row, tl.log(total) + shift)


class ModelNew(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = x.new_empty(x.shape[:-1])
        logsumexp_kernel[(y.numel(),)](x, y, x.shape[-1], BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
