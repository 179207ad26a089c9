"""Maximum or mean of the windows of one, two or three dimensions: a tile of rows of the result in one pass.

The mean counts the padding, as PyTorch's does by default. Neighbouring windows share their values in the L1
cache.
"""
# seed: pooling/cuda_windows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 512  # tune: 256, 512, 1024, 2048
MAX_COLUMNS = 512  # tune: 64, 128, 256, 512, 1024
NUM_WARPS = 4  # tune: 2, 4, 8

IS_MAX = tl.constexpr(True)  # variant: is_max
RANK = 2  # variant: rank
DEFAULT_STRIDE = None  # variant: default_stride


@triton.jit
def pool_kernel(
    x_ptr, y_ptr, rows, D, H, W, OD, OH, OW,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    LD: tl.constexpr, LH: tl.constexpr, LW: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(OW, COLUMNS)
    row = (tl.program_id(0) // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    d = ((row // OH) % OD).to(tl.int32) * SD - PD
    h = (row % OH).to(tl.int32) * SH - PH
    w = column * SW - PW
    plane = x_ptr + (row // OH // OD) * D * H * W
    wanted = (row < rows)[:, None] & (column < OW)[None, :]
    if IS_MAX:
        result = tl.full((ROWS, COLUMNS), -float("inf"), tl.float32)
    else:
        result = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tap in range(KD * KH):
        z, y = d + tap // KH * LD, h + tap % KH * LH
        is_row = (z >= 0) & (z < D) & (y >= 0) & (y < H)
        line = plane + (z.to(tl.int64) * H + y) * W
        for k in tl.static_range(KW):
            at = w + k * LW
            inside = wanted & is_row[:, None] & ((at >= 0) & (at < W))[None, :]
            if IS_MAX:
                x = tl.load(line[:, None] + at[None, :], mask=inside, other=-float("inf"))
                result = tl.where((x > result) | (x != x), x, result)
            else:
                result += tl.load(line[:, None] + at[None, :], mask=inside, other=0.0)
    if not IS_MAX:
        result /= KD * KH * KW
    tl.store(y_ptr + row[:, None] * OW + column[None, :], result, mask=wanted)


def three(value: int | tuple[int, ...], filled: int) -> tuple[int, ...]:
    """The value for depth, height and width; `filled` for dimensions that the tensor has not."""
    values = (value,) * RANK if isinstance(value, int) else tuple(value)
    return (filled,) * (3 - RANK) + values


class ModelNew(nn.Module):
    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = DEFAULT_STRIDE,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        if return_indices or ceil_mode:
            raise ValueError("this kernel returns no indices, and has no windows that are cut off")
        stride = kernel_size if stride is None else stride
        self.kernel, self.stride = three(kernel_size, 1), three(stride, 1)
        self.padding, self.dilation = three(padding, 0), three(dilation, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        sizes = (1,) * (3 - RANK) + tuple(x.shape[-RANK:])
        settings = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        pooled = [(size + 2 * p - dilation * (k - 1) - 1) // s + 1 for size, k, s, p, dilation in settings]
        y = x.new_empty((*x.shape[:-RANK], *pooled[3 - RANK :]))
        rows = y.numel() // pooled[2]
        columns = min(MAX_COLUMNS, BLOCK, triton.next_power_of_2(pooled[2]))
        height = BLOCK // columns
        grid = (triton.cdiv(rows, height) * triton.cdiv(pooled[2], columns),)
        windows = (*self.kernel, *self.stride, *self.padding, *self.dilation)
        pool_kernel[grid](x, y, rows, *sizes, *pooled, *windows, height, columns, num_warps=NUM_WARPS)
        return y
