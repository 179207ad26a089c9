"""Diagonal matrix, given by its diagonal, times matrix: each row is scaled. Takes finite values."""
# seed: diagonal/cuda_blocks

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_ROWS = 4  # tune: 1, 2, 4, 8, 16
BLOCK_COLUMNS = 512  # tune: 128, 256, 512, 1024, 2048
NUM_WARPS = 4  # tune: 2, 4, 8


@triton.jit
def scale_kernel(a_ptr, b_ptr, c_ptr, rows, n, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    a = tl.load(a_ptr + row, mask=row < rows)
    at = row[:, None] * n + column[None, :]
    inside = (row < rows)[:, None] & (column < n)[None, :]
    tl.store(c_ptr + at, a[:, None] * tl.load(b_ptr + at, mask=inside), mask=inside)


class ModelNew(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        A, B = A.contiguous(), B.contiguous()
        C = torch.empty_like(B)
        rows, n = B.shape
        grid = (triton.cdiv(rows, BLOCK_ROWS), triton.cdiv(n, BLOCK_COLUMNS))
        blocks = {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_COLUMNS": BLOCK_COLUMNS}
        scale_kernel[grid](A, B, C, rows, n, **blocks, num_warps=NUM_WARPS)
        return C
