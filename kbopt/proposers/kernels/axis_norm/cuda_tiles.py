"""Values divided by a norm over one dimension: by its mean of absolute values, Euclidean norm or mean square.

Over the last dimension a program takes a row, which its second reading finds in the L2 cache; over another
one it takes the values of neighbouring columns, and keeps them in registers where they are few enough.
"""
# seed: axis_norm/cuda_tiles

import math

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_ROW = 4096  # tune: 1024, 2048, 4096, 8192, 16384
WARPS_OF_ROW = 16  # tune: 8, 16, 32
BLOCK_COLUMNS = 128  # tune: 32, 64, 128, 256
NUM_WARPS = 4  # tune: 4, 8, 16

IN_REGISTERS = 16384  # values of a tile that 4 to 16 warps can hold


@triton.jit
def term(x):
    return x * x  # variant: term


@triton.jit
def norm(total, n, eps):  # noqa: ARG001
    return tl.sqrt_rn(total)  # variant: norm


@triton.jit
def row_kernel(x_ptr, y_ptr, n, eps, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        at = start + lane
        total += term(tl.load(x_ptr + first + at, mask=at < n, other=0.0))
    divisor = norm(tl.sum(total, axis=0), n, eps)
    for start in range(0, n, BLOCK):
        at = start + lane
        x = tl.load(x_ptr + first + at, mask=at < n, eviction_policy="evict_first")
        tl.store(y_ptr + first + at, x / divisor, mask=at < n)


@triton.jit
def column_kernel(
    x_ptr, y_ptr, n, inner, eps, IS_WHOLE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_COLUMNS: tl.constexpr
):
    tiles = tl.cdiv(inner, BLOCK_COLUMNS)
    outer = (tl.program_id(0) // tiles).to(tl.int64)
    column = (tl.program_id(0) % tiles) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row = tl.arange(0, BLOCK_N)
    at = outer * n * inner + row[:, None].to(tl.int64) * inner + column[None, :]
    wanted = (column < inner)[None, :]
    if IS_WHOLE:
        inside = wanted & (row < n)[:, None]
        x = tl.load(x_ptr + at, mask=inside, other=0.0)
        divisor = norm(tl.sum(term(x), axis=0), n, eps)
        tl.store(y_ptr + at, x / divisor[None, :], mask=inside)
    else:
        total = tl.zeros((BLOCK_N, BLOCK_COLUMNS), tl.float32)
        here = x_ptr + at
        for start in range(0, n, BLOCK_N):
            inside = wanted & (row < n - start)[:, None]
            total += term(tl.load(here, mask=inside, other=0.0))
            here += BLOCK_N * inner
        divisor = norm(tl.sum(total, axis=0), n, eps)
        for start in range(0, n, BLOCK_N):
            inside = wanted & (row < n - start)[:, None]
            tl.store(y_ptr + at, tl.load(x_ptr + at, mask=inside) / divisor[None, :], mask=inside)
            at += BLOCK_N * inner


class ModelNew(nn.Module):
    """Over dimension 1, as KernelBench's tasks; the number of its values is not needed beforehand."""

    def __init__(self, num_features: int = 0, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n, inner = x.shape[1], math.prod(x.shape[2:])
        if inner == 1:
            row_kernel[(x.shape[0],)](x, y, n, self.eps, BLOCK=BLOCK_ROW, num_warps=WARPS_OF_ROW)
            return y
        height = triton.next_power_of_2(n)
        is_whole = height * BLOCK_COLUMNS <= IN_REGISTERS
        blocks = {"BLOCK_N": height if is_whole else 16, "BLOCK_COLUMNS": BLOCK_COLUMNS}
        grid = (x.shape[0] * triton.cdiv(inner, BLOCK_COLUMNS),)
        column_kernel[grid](x, y, n, inner, self.eps, IS_WHOLE=is_whole, **blocks, num_warps=NUM_WARPS)
        return y
