"""A chain of pointwise operations by as many programs as the device runs at once."""
# seed: elementwise/cuda_persistent

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 2048  # tune: 512, 1024, 2048, 4096, 8192
PROGRAMS_PER_PROCESSOR = 4  # tune: 1, 2, 4, 8, 16
NUM_WARPS = 8  # tune: 2, 4, 8, 16


@triton.jit
def formula(x, z):  # noqa: ARG001
    return x  # variant: triton


@triton.jit
def chain_kernel(x_ptr, z_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    for _ in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        inside = at < n
        x = tl.load(x_ptr + at, mask=inside)
        z = tl.load(z_ptr + at, mask=inside)
        tl.store(y_ptr + at, formula(x, z), mask=inside)
        at += tl.num_programs(0) * BLOCK


class ModelNew(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, z = inputs[0].contiguous(), inputs[-1].contiguous()
        y = torch.empty_like(x)
        processors = torch.cuda.get_device_properties(x.device).multi_processor_count
        programs = min(triton.cdiv(x.numel(), BLOCK), processors * PROGRAMS_PER_PROCESSOR)
        chain_kernel[(programs,)](x, z, y, x.numel(), BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
