"""A chain of pointwise operations in one pass over memory."""
# seed: elementwise/cuda_blocks

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 1024  # tune: 256, 512, 1024, 2048, 4096, 8192
NUM_WARPS = 4  # tune: 2, 4, 8, 16


@triton.jit
def formula(x, z):  # noqa: ARG001
    return x  # variant: triton


@triton.jit
def chain_kernel(x_ptr, z_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside)
    z = tl.load(z_ptr + at, mask=inside)
    tl.store(y_ptr + at, formula(x, z), mask=inside)


class ModelNew(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, z = inputs[0].contiguous(), inputs[-1].contiguous()
        y = torch.empty_like(x)
        grid = (triton.cdiv(x.numel(), BLOCK),)
        chain_kernel[grid](x, z, y, x.numel(), BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
