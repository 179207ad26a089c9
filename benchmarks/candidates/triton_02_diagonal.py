import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def diag_kernel(a_ptr, b_ptr, c_ptr, M, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < M
    scale = tl.load(a_ptr + row)
    values = tl.load(b_ptr + row.to(tl.int64) * M + offsets, mask=mask)
    tl.store(c_ptr + row.to(tl.int64) * M + offsets, values * scale, mask=mask)


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, A, B):
        B = B.contiguous()
        out = torch.empty_like(B)
        N, M = B.shape
        diag_kernel[(N, triton.cdiv(M, 1024))](A, B, out, M, BLOCK=1024)
        return out
