"""Matrix product whose long shared dimension is split among programs; their sums are added at the end.

A product with a single column is one of sums alone, bound by memory.
"""
# seed: matmul/cuda_split_k

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_M = 64  # tune: 32, 64, 128
BLOCK_N = 128  # tune: 32, 64, 128, 256
BLOCK_K = 16  # tune: 8, 16, 32, 64
NUM_WARPS = 4  # tune: 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4
SPLITS = 32  # tune: 4, 8, 16, 32, 64, 128

TRANSPOSE_A = False  # variant: transpose_a
TRANSPOSE_B = False  # variant: transpose_b
MAX_PARTIAL_BYTES = 2**30
COLUMN_ROWS = 4  # tune: 1, 2, 4, 8
COLUMN_BLOCK = 1024  # tune: 256, 512, 1024, 2048


@triton.jit
def partial_kernel(
    a_ptr, a_batch, a_row, a_k, b_ptr, b_batch, b_k, b_column, partial_ptr, m, n, depth, part,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    columns = tl.cdiv(n, BLOCK_N)
    row = (tl.program_id(0) // columns).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (tl.program_id(0) % columns).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    split, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k = split * part + tl.arange(0, BLOCK_K)
    end = tl.minimum((split + 1) * part, depth)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(0, part, BLOCK_K):
        a_at = a_ptr + batch * a_batch + row[:, None] * a_row + k[None, :] * a_k
        b_at = b_ptr + batch * b_batch + k[:, None] * b_k + column[None, :] * b_column
        a = tl.load(a_at, mask=(row < m)[:, None] & (k < end)[None, :], other=0.0)
        b = tl.load(b_at, mask=(k < end)[:, None] & (column < n)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
        k += BLOCK_K
    inside = (row < m)[:, None] & (column < n)[None, :]
    first = (split * tl.num_programs(2) + batch) * m
    tl.store(partial_ptr + (first + row[:, None]) * n + column[None, :], total, mask=inside)


@triton.jit
def column_kernel(
    a_ptr, a_batch, a_row, a_k, b_ptr, b_batch, b_k, partial_ptr, m, depth, part,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    split, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k = split * part + tl.arange(0, BLOCK)
    end = tl.minimum((split + 1) * part, depth)
    a_at = a_ptr + batch * a_batch + row[:, None] * a_row
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for _ in range(0, part, BLOCK):
        b = tl.load(b_ptr + batch * b_batch + k * b_k, mask=k < end, other=0.0)
        a = tl.load(a_at + k[None, :] * a_k, mask=(row < m)[:, None] & (k < end)[None, :], other=0.0)
        total += a * b[None, :]
        k += BLOCK
    first = (split * tl.num_programs(2) + batch) * m
    tl.store(partial_ptr + first + row, tl.sum(total, axis=1), mask=row < m)


@triton.jit
def sum_kernel(partial_ptr, c_ptr, size, splits, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(splits):
        total += tl.load(partial_ptr + at, mask=at < size, other=0.0)
        partial_ptr += size
    tl.store(c_ptr + at, total, mask=at < size)


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
        size = batches * m * n
        block = COLUMN_BLOCK if n == 1 else BLOCK_K
        splits = max(1, min(SPLITS, depth // block, MAX_PARTIAL_BYTES // (4 * size)))
        part = triton.cdiv(triton.cdiv(depth, splits), block) * block
        partial = a.new_empty((splits, batches, m, n))
        rows = A.mT.shape[:-1] if TRANSPOSE_A else A.shape[:-1]
        C = a.new_empty((*rows, n))
        factors = (a, *a.stride(), b, *b.stride())
        if n == 1:
            grid = (triton.cdiv(m, COLUMN_ROWS), splits, batches)
            column_kernel[grid](
                *factors[:-1], partial, m, depth, part, COLUMN_ROWS, block, num_warps=NUM_WARPS
            )
        else:
            grid = (triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N), splits, batches)
            blocks = {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K}
            limits = {"num_warps": NUM_WARPS, "num_stages": NUM_STAGES}
            partial_kernel[grid](*factors, partial, m, n, depth, part, **blocks, **limits)
        sum_kernel[(triton.cdiv(size, 1024),)](partial, C, size, splits, BLOCK=1024)
        return C
