"""One fused kernel in Triton."""

import torch
import triton
import triton.language as tl


@triton.jit
def fused(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    tanh = 2.0 * tl.sigmoid(2.0 * value) - 1.0
    tl.store(y + at, tanh * 1.5 + tl.sin(value), mask=at < n)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        n = x.numel()
        fused[(triton.cdiv(n, 1024),)](x, out, n, BLOCK=1024)
        return out
