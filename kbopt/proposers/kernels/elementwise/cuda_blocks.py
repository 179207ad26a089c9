"""A chain of pointwise operations in one pass over memory."""
# seed: elementwise/cuda_blocks

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 1024  # tune: 256, 512, 1024, 2048, 4096, 8192
NUM_WARPS = 4  # tune: 2, 4, 8, 16
PARAMETER = 0.0  # variant: parameter


# begin: pointwise functions in Triton
@triton.jit
def expm1_(x):
    """e to the x less 1, without cancellation near 0; Taylor's sum is within a rounding for |x| < 1/2."""
    p = 2.4801587e-5 * x + 1.9841270e-4
    p = p * x + 1.3888889e-3
    p = p * x + 8.3333333e-3
    p = p * x + 4.1666667e-2
    p = p * x + 1.6666667e-1
    p = p * x + 0.5
    return tl.where(tl.abs(x) < 0.5, x + x * x * p, tl.exp(x) - 1.0)


@triton.jit
def log1p_(e):
    """log(1 + e), whose rounding of 1 + e is made good by the quotient."""
    u = 1.0 + e
    return tl.where(u == 1.0, e, tl.log(u) * (e / (u - 1.0)))


@triton.jit
def tanh_(x):
    """The polynomial for |x| < 0.625 is that of Cephes' tanhf."""
    z, a = x * x, tl.abs(x)
    p = -5.70498872745e-3 * z + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    far = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, x + x * z * p, tl.where(x < 0.0, -far, far))


# end: pointwise functions in Triton


@triton.jit
def formula(x, z, p):  # noqa: ARG001
    return x  # variant: triton


@triton.jit
def chain_kernel(x_ptr, z_ptr, y_ptr, n, p, BINARY: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside)
    z = x
    if BINARY:
        z = tl.load(z_ptr + at, mask=inside)
    tl.store(y_ptr + at, formula(x, z, p), mask=inside)


class ModelNew(nn.Module):
    """`parameter`, or a number in place of the second tensor, is the formula's p."""

    def __init__(self, parameter: float = PARAMETER):
        super().__init__()
        self.parameter = parameter

    def forward(self, *inputs: torch.Tensor | float) -> torch.Tensor:
        x, z = inputs[0].contiguous(), inputs[-1]
        p = self.parameter if isinstance(z, torch.Tensor) else z
        z = z.contiguous() if isinstance(z, torch.Tensor) else x
        binary = len(inputs) > 1 and z is not x
        y = torch.empty_like(x)
        grid = (triton.cdiv(x.numel(), BLOCK),)
        chain_kernel[grid](x, z, y, x.numel(), float(p), BINARY=binary, BLOCK=BLOCK, num_warps=NUM_WARPS)
        return y
