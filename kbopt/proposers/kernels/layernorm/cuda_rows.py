"""Layer normalisation over the last dimension, of the sum of one or two tensors; one program a row."""
# seed: layernorm/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 4096  # tune: 512, 1024, 2048, 4096, 8192, 16384
NUM_WARPS = 8  # tune: 2, 4, 8, 16, 32


@triton.jit
def row_at(x_ptr, residual_ptr, at, inside, HAS_RESIDUAL: tl.constexpr):
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + at, mask=inside, other=0.0)
    return x


@triton.jit
def layernorm_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, y_ptr, n, eps, HAS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr
):
    first = tl.program_id(0).to(tl.int64) * n
    total = 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.sum(row_at(x_ptr, residual_ptr, first + at, at < n, HAS_RESIDUAL), axis=0)
    mean = total / n
    squares = 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = row_at(x_ptr, residual_ptr, first + at, at < n, HAS_RESIDUAL)
        d = tl.where(at < n, x - mean, 0.0)
        squares += tl.sum(d * d, axis=0)
    scale = 1.0 / tl.sqrt_rn(squares / n + eps)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = row_at(x_ptr, residual_ptr, first + at, at < n, HAS_RESIDUAL)
        weight = tl.load(weight_ptr + at, mask=at < n)
        bias = tl.load(bias_ptr + at, mask=at < n)
        tl.store(y_ptr + first + at, (x - mean) * scale * weight + bias, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        layernorm_kernel[(x.numel() // n,)](
            x,
            x if residual is None else residual.contiguous(),
            self.norm.weight,
            self.norm.bias,
            y,
            n,
            self.norm.eps,
            HAS_RESIDUAL=residual is not None,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
        return y
