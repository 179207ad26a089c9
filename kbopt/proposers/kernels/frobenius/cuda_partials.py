"""A tensor divided by its Euclidean norm: each program sums the squares of its share, then all divide theirs.

The second pass begins at the end of the tensor, which the L2 cache still holds.
"""
# seed: frobenius/cuda_partials

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 1024, 2048, 4096, 8192
PROGRAMS = 1024  # tune: 256, 512, 1024, 2048
NUM_WARPS = 8  # tune: 4, 8, 16


@triton.jit
def partial_kernel(x_ptr, partials_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        x = tl.load(x_ptr + at, mask=at < n, other=0.0)
        total += x * x
        at += tl.num_programs(0).to(tl.int64) * BLOCK
    tl.store(partials_ptr + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def norm_kernel(partials_ptr, norm_ptr, num_partials, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(partials_ptr + at, mask=at < num_partials, other=0.0), axis=0)
    tl.store(norm_ptr, tl.sqrt_rn(total))


@triton.jit
def divide_kernel(x_ptr, y_ptr, norm_ptr, n, BLOCK: tl.constexpr):
    at = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, x / tl.load(norm_ptr), mask=at < n)


class ModelNew(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y, n = torch.empty_like(x), x.numel()
        blocks = triton.cdiv(n, BLOCK)
        programs = min(PROGRAMS, blocks)
        partials, norm = x.new_empty(programs), x.new_empty(())
        partial_kernel[(programs,)](x, partials, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
        norm_kernel[(1,)](partials, norm, programs, BLOCK=triton.next_power_of_2(programs), num_warps=4)
        divide_kernel[(blocks,)](x, y, norm, n, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
