"""Scaled dot product attention by two products on tensor cores, with a softmax in place between them.

The scores are in memory once, which pays for heads as wide as the sequence is long. Each factor is the sum
of two TF32 numbers, which keeps fp32's precision.
"""
# seed: attention/cuda_two_products

import math

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_M = 128  # tune: 64, 128
BLOCK_N = 128  # tune: 64, 128, 256
BLOCK_K = 32  # tune: 16, 32, 64
NUM_WARPS = 8  # tune: 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4
PRECISION = "tf32x3"  # tune: "tf32x3", "ieee"


@triton.jit
def product_kernel(
    a_ptr, b_ptr, c_ptr, m, n, depth, scale, b_k, b_column, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """scale * A (m, depth) B (depth, n), of each head by itself; A and C are contiguous."""
    columns = tl.cdiv(n, BLOCK_N)
    row = (tl.program_id(0) // columns) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    head = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    a_at = a_ptr + head * m * depth + row[:, None].to(tl.int64) * depth + k[None, :]
    b_at = b_ptr + head * n * depth + k[:, None].to(tl.int64) * b_k + column[None, :].to(tl.int64) * b_column
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, depth, BLOCK_K):
        a = tl.load(a_at, mask=(row < m)[:, None] & (k < depth - start)[None, :], other=0.0)
        b = tl.load(b_at, mask=(k < depth - start)[:, None] & (column < n)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        a_at += BLOCK_K
        b_at += BLOCK_K * b_k
    inside = (row < m)[:, None] & (column < n)[None, :]
    tl.store(c_ptr + (head * m + row[:, None]) * n + column[None, :], total * scale, mask=inside)


@triton.jit
def softmax_kernel(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * n + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < n
    x = tl.load(x_ptr + at, mask=inside, other=-float("inf"))
    x = tl.exp(x - tl.max(x, axis=0))
    tl.store(x_ptr + at, x / tl.sum(x, axis=0), mask=inside)


def multiply(a, b, c, depth, scale, b_strides):
    """Fills c (heads, m, n) with the heads' products."""
    heads, m, n = c.shape
    blocks = {"BLOCK_M": BLOCK_M, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K}
    limits = {"num_warps": NUM_WARPS, "num_stages": NUM_STAGES}
    product_kernel[(triton.cdiv(m, BLOCK_M) * triton.cdiv(n, BLOCK_N), heads)](
        a, b, c, m, n, depth, scale, *b_strides, PRECISION=PRECISION, **blocks, **limits
    )


class ModelNew(nn.Module):
    def forward(self, Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
        Q, K, V = (x.contiguous() for x in (Q, K, V))
        (queries, depth), (keys, width) = Q.shape[-2:], V.shape[-2:]
        heads = Q.numel() // (queries * depth)
        scores = Q.new_empty((heads, queries, keys))
        multiply(Q, K, scores, depth, 1.0 / math.sqrt(depth), (1, depth))
        block = triton.next_power_of_2(keys)
        softmax_kernel[(heads * queries,)](scores, keys, BLOCK=block, num_warps=max(1, min(16, block // 256)))
        out = Q.new_empty((heads, queries, width))
        multiply(scores, V, out, keys, 1.0, (width, 1))
        return out.view(*Q.shape[:-1], width)
