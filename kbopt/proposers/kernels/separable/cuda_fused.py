"""Depthwise and pointwise convolution in two dimensions at once: what the first makes is never in memory.

A program makes a tile of depthwise results, places by input channels, in fp32, and multiplies it with the
pointwise weights in TF32, as cuDNN computes by PyTorch's default; sums are in fp32.
"""
# seed: separable/cuda_fused

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_P = 128  # tune: 64, 128, 256
BLOCK_C = 128  # tune: 32, 64, 128
BLOCK_K = 16  # tune: 16, 32, 64
NUM_WARPS = 8  # tune: 4, 8
NUM_STAGES = 2  # tune: 1, 2, 3
PRECISION = "tf32"  # tune: "tf32", "tf32x3"


# begin: rounding
@triton.jit
def rounded(x):
    """The nearest TF32 number: tensor cores cut the last 13 bits off, at more than twice the error."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True), x)


# end: rounding


@triton.jit
def separable_kernel(
    x_ptr, near_ptr, near_bias_ptr, w_ptr, bias_ptr, y_ptr, places, channels_in, channels_out, H, W, OW,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, LH: tl.constexpr, LW: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_c = tl.cdiv(channels_out, BLOCK_C)
    tile_p = (tl.program_id(0) // tiles_c) % tl.cdiv(places, BLOCK_P)
    sample = (tl.program_id(0) // tiles_c // tl.cdiv(places, BLOCK_P)).to(tl.int64)
    place = tile_p * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = (tl.program_id(0) % tiles_c) * BLOCK_C + tl.arange(0, BLOCK_C)
    h, w = place // OW * SH - PH, place % OW * SW - PW
    x_ptr += sample * channels_in * H * W
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, channels_in, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        made = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
        for tap in tl.static_range(KH * KW):
            y, z = h + tap // KW * LH, w + tap % KW * LW
            is_there = (place < places) & (y >= 0) & (y < H) & (z >= 0) & (z < W)
            inside = is_there[:, None] & (k < channels_in)[None, :]
            x = tl.load(x_ptr + ((y * W + z)[:, None] + k[None, :] * (H * W)), mask=inside, other=0.0)
            near = tl.load(near_ptr + k * (KH * KW) + tap, mask=k < channels_in, other=0.0)
            made += x * near[None, :]
        if HAS_BIAS:
            made += tl.load(near_bias_ptr + k, mask=k < channels_in, other=0.0)[None, :]
        b_inside = (k < channels_in)[:, None] & (channel < channels_out)[None, :]
        b = tl.load(w_ptr + (channel[None, :] * channels_in + k[:, None]), mask=b_inside, other=0.0)
        if PRECISION == "tf32":
            made, b = rounded(made), rounded(b)
        total = tl.dot(made, b, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias_ptr + channel, mask=channel < channels_out, other=0.0)[None, :]
    y_ptr += sample * channels_out * places
    inside = (place < places)[:, None] & (channel < channels_out)[None, :]
    tl.store(y_ptr + (channel[None, :].to(tl.int64) * places + place[:, None]), total, mask=inside)


class ModelNew(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, bias=False):
        super().__init__()
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
        self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, groups=in_channels, **settings)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        near, far = self.depthwise, self.pointwise
        windows = (*near.kernel_size, *near.stride, *near.padding, *near.dilation)
        settings = zip(x.shape[2:], near.kernel_size, near.stride, near.padding, near.dilation, strict=True)
        made = [(size + 2 * p - step * (k - 1) - 1) // s + 1 for size, k, s, p, step in settings]
        y = x.new_empty((x.shape[0], far.out_channels, *made))
        places = made[0] * made[1]
        block_c = min(BLOCK_C, max(16, triton.next_power_of_2(far.out_channels)))
        separable_kernel[
            (x.shape[0] * triton.cdiv(places, BLOCK_P) * triton.cdiv(far.out_channels, block_c),)
        ](
            x,
            near.weight.contiguous(),
            x if near.bias is None else near.bias,
            far.weight.contiguous(),
            x if far.bias is None else far.bias,
            y,
            places,
            far.in_channels,
            far.out_channels,
            *x.shape[2:],
            made[1],
            *windows,
            HAS_BIAS=near.bias is not None,
            PRECISION=PRECISION,
            BLOCK_P=BLOCK_P,
            BLOCK_C=block_c,
            BLOCK_K=BLOCK_K,
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
        return y
