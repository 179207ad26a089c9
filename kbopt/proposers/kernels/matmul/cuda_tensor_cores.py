"""Matrix product on tensor cores at fp32's precision: each factor is the sum of two TF32 numbers.

Three products of such halves are added in fp32; the fourth is below fp32's rounding. Tensor cores cut off
what they add, so sums of more than SPAN terms are added by the other cores, which round.
"""
# seed: matmul/cuda_tensor_cores

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_M = 128  # tune: 64, 128
BLOCK_N = 128  # tune: 64, 128
BLOCK_K = 16  # tune: 16, 32, 64
NUM_WARPS = 8  # tune: 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4
GROUP_M = 8  # tune: 1, 4, 8, 16
SPAN = 1024  # tune: 512, 1024, 2048, 4096

TRANSPOSE_A = False  # variant: transpose_a
TRANSPOSE_B = False  # variant: transpose_b


@triton.jit
def tile_of(program, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of a program's tile, in groups of GROUP_M rows whose factors stay in the L2 cache."""
    columns = tl.cdiv(n, BLOCK_N)
    group = program // (GROUP_M * columns)
    first = group * GROUP_M
    height = min(tl.cdiv(m, BLOCK_M) - first, GROUP_M)
    within = program % (GROUP_M * columns)
    return first + within % height, within // height


@triton.jit
def matmul_kernel(
    a_ptr, a_batch, a_row, a_k, b_ptr, b_batch, b_k, b_column, c_ptr, m, n, depth,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    SPAN: tl.constexpr,
):  # fmt: skip
    tile_row, tile_column = tile_of(tl.program_id(0), m, n, BLOCK_M, BLOCK_N, GROUP_M)
    batch = tl.program_id(1).to(tl.int64)
    row = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    a_at = a_ptr + batch * a_batch + row[:, None] * a_row + k[None, :].to(tl.int64) * a_k
    b_at = b_ptr + batch * b_batch + k[:, None].to(tl.int64) * b_k + column[None, :] * b_column
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, depth, SPAN):
        part = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(first, tl.minimum(first + SPAN, depth), BLOCK_K):
            a = tl.load(a_at, mask=(row < m)[:, None] & (k < depth - start)[None, :], other=0.0)
            b = tl.load(b_at, mask=(k < depth - start)[:, None] & (column < n)[None, :], other=0.0)
            part = tl.dot(a, b, part, input_precision="tf32x3")
            a_at += BLOCK_K * a_k
            b_at += BLOCK_K * b_k
        total += part
    inside = (row < m)[:, None] & (column < n)[None, :]
    tl.store(c_ptr + (batch * m + row[:, None]) * n + column[None, :], total, mask=inside)


def as_batches(A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both factors as (batch, rows, columns); a B without a batch is shared by all rows of A."""
    A = A.contiguous().mT if TRANSPOSE_A else A.contiguous()
    B = B.contiguous().mT if TRANSPOSE_B else B.contiguous()
    if B.dim() == 2:
        A = A.flatten(0, -2) if A.dim() > 2 else A
        return A.unsqueeze(0), B.unsqueeze(0)
    return A, B


class ModelNew(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        a, b = as_batches(A, B)
        batches, m, depth = a.shape
        n = b.shape[-1]
        rows = A.mT.shape[:-1] if TRANSPOSE_A else A.shape[:-1]
        C = A.new_empty((*rows, n))
        tiles = triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N)
        blocks = {
            "BLOCK_M": BLOCK_M,
            "BLOCK_N": BLOCK_N,
            "BLOCK_K": BLOCK_K,
            "GROUP_M": GROUP_M,
            "SPAN": SPAN,
        }
        limits = {"num_warps": NUM_WARPS, "num_stages": NUM_STAGES}
        matmul_kernel[(tiles, batches)](a, *a.stride(), b, *b.stride(), C, m, n, depth, **blocks, **limits)
        return C
