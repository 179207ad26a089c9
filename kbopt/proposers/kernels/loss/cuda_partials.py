"""Mean of a formula of two tensors: each program sums its share of the elements, one more sums their sums.

A second tensor of fewer dimensions is used again for each row of the first.
"""
# seed: loss/cuda_partials

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 2048  # tune: 512, 1024, 2048, 4096, 8192
PROGRAMS = 1056  # tune: 264, 528, 1056, 2112
NUM_WARPS = 8  # tune: 4, 8, 16

OVER_ROWS = False  # variant: over_rows


@triton.jit
def value(x, z):
    return (x - z) * (x - z)  # variant: triton


@triton.jit
def partial_kernel(x_ptr, z_ptr, partials_ptr, n, period, IS_REPEATED: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        inside = start + lane < n
        z_at = start + lane
        if IS_REPEATED:
            z_at = start % period + lane
            z_at = tl.where(z_at < period, z_at, z_at - period)
        x = tl.load(x_ptr + start + lane, mask=inside, other=0.0)
        z = tl.load(z_ptr + z_at, mask=inside, other=0.0)
        total += tl.where(inside, value(x, z), 0.0)
        start += tl.num_programs(0).to(tl.int64) * BLOCK
    tl.store(partials_ptr + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def mean_kernel(partials_ptr, mean_ptr, num_partials, divisor, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(partials_ptr + at, mask=at < num_partials, other=0.0), axis=0)
    tl.store(mean_ptr, total / divisor)


class ModelNew(nn.Module):
    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        if z.shape != x.shape[x.dim() - z.dim() :] or z.numel() < BLOCK:
            z = z.expand_as(x)
        z = z.contiguous()
        programs = min(PROGRAMS, triton.cdiv(x.numel(), BLOCK))
        partials, mean = x.new_empty(programs), x.new_empty(())
        sizes = (x.numel(), z.numel())
        partial_kernel[(programs,)](
            x, z, partials, *sizes, IS_REPEATED=z.numel() < x.numel(), BLOCK=BLOCK, num_warps=NUM_WARPS
        )
        divisor = float(x.shape[0] if OVER_ROWS else x.numel())
        mean_kernel[(1,)](
            partials, mean, programs, divisor, BLOCK=triton.next_power_of_2(programs), num_warps=4
        )
        return mean
