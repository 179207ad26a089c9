"""Transposed convolution of one to three dimensions as products of matrices that are never formed in memory.

Places of the result whose coordinates leave the same remainder after division by the stride make a phase:
they need the same taps, and read their inputs side by side. Rows of a product are the places of a phase,
columns the output channels, and the shared dimension runs over taps and input channels. TF32, as cuDNN
computes by PyTorch's default.
"""
# seed: transposed_convolution/cuda_phases

import math

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_P = 128  # tune: 64, 128, 256
BLOCK_C = 128  # tune: 32, 64, 128
BLOCK_K = 32  # tune: 16, 32, 64
NUM_WARPS = 8  # tune: 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4
PRECISION = "tf32"  # tune: "tf32", "tf32x3"

NAME = "conv_transpose2d"  # variant: name


# begin: rounding
@triton.jit
def rounded(x):
    """The nearest TF32 number: tensor cores cut the last 13 bits off, at more than twice the error."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True), x)


# end: rounding


@triton.jit
def pack_kernel(
    w_ptr, packed_ptr, size, group_in, group_out, taps, PRECISION: tl.constexpr, BLOCK: tl.constexpr
):
    """Weights (group, input, output, tap) as (group, tap, output, input), which a program reads together."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, o = at % group_in, at // group_in % group_out
    tap, group = at // group_in // group_out % taps, at // group_in // group_out // taps
    w = tl.load(w_ptr + ((group * group_in + i) * group_out + o) * taps + tap, mask=at < size)
    if PRECISION == "tf32":
        w = rounded(w)
    tl.store(packed_ptr + at, w, mask=at < size)


@triton.jit
def first_tap(remainder, K: tl.constexpr, S: tl.constexpr, L: tl.constexpr):
    """The smallest tap k of K with (remainder - k * L) divisible by the stride S; K where there is none."""
    found = K + 0 * remainder
    for back in tl.static_range(K):
        k = K - 1 - back
        found = tl.where((remainder + K * L * S - k * L) % S == 0, k, found)
    return found


@triton.jit
def transposed_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, tiles_p, channels_in, channels_out, groups, D, H, W, OD, OH, OW,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    LD: tl.constexpr, LH: tl.constexpr, LW: tl.constexpr,
    ED: tl.constexpr, EH: tl.constexpr, EW: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    group_in, group_out = channels_in // groups, channels_out // groups
    tiles_c = tl.cdiv(group_out, BLOCK_C)
    tile_c = tl.program_id(0) % tiles_c
    tile_p = (tl.program_id(0) // tiles_c) % tiles_p
    phase = (tl.program_id(0) // tiles_c // tiles_p) % (SD * SH * SW)
    sample = (tl.program_id(0) // tiles_c // tiles_p // (SD * SH * SW)).to(tl.int64)
    group = tl.program_id(1)
    # The coordinates of a phase are its remainder r plus multiples q of the stride.
    rd, rh, rw = phase // (SH * SW), phase // SW % SH, phase % SW
    qh_count, qw_count = (OH - rh + SH - 1) // SH, (OW - rw + SW - 1) // SW
    places = (OD - rd + SD - 1) // SD * qh_count * qw_count
    place = tile_p * BLOCK_P + tl.arange(0, BLOCK_P)
    qd, qh, qw = place // (qh_count * qw_count), place // qw_count % qh_count, place % qw_count
    # Every ED-th tap of a dimension counts, from its first one on.
    fd, fh, fw = (
        first_tap(rd + PD, KD, SD, LD),
        first_tap(rh + PH, KH, SH, LH),
        first_tap(rw + PW, KW, SW, LW),
    )
    nd, nh, nw = (KD - fd + ED - 1) // ED, (KH - fh + EH - 1) // EH, (KW - fw + EW - 1) // EW
    channel = tile_c * BLOCK_C + tl.arange(0, BLOCK_C)
    blocks_k = tl.cdiv(group_in, BLOCK_K)
    x_ptr += (sample * channels_in + group * group_in) * D * H * W
    w_ptr += group.to(tl.int64) * group_in * group_out * (KD * KH * KW)
    from_place = (qd * H + qh) * W + qw
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    steps = nd * nh * nw * blocks_k if tile_p * BLOCK_P < places else 0
    for step in range(steps):
        number = step // blocks_k
        kd, kh, kw = fd + number // (nh * nw) * ED, fh + number // nw % nh * EH, fw + number % nw * EW
        zd, zh, zw = (rd + PD - kd * LD) // SD, (rh + PH - kh * LH) // SH, (rw + PW - kw * LW) // SW
        is_there = (qd + zd >= 0) & (qd + zd < D) & (qh + zh >= 0) & (qh + zh < H)
        is_there &= (qw + zw >= 0) & (qw + zw < W) & (place < places)
        i = step % blocks_k * BLOCK_K + tl.arange(0, BLOCK_K)
        from_tap = (zd * H + zh) * W + zw + i * (D * H * W)
        inside = is_there[:, None] & (i < group_in)[None, :]
        a = tl.load(x_ptr + (from_place[:, None] + from_tap[None, :]), mask=inside, other=0.0)
        if PRECISION == "tf32":
            a = rounded(a)
        tap = (kd * KH + kh) * KW + kw
        b_inside = (i < group_in)[:, None] & (channel < group_out)[None, :]
        from_weight = (tap * group_out + channel)[None, :] * group_in + i[:, None]
        b = tl.load(w_ptr + from_weight, mask=b_inside, other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * group_out + channel, mask=channel < group_out, other=0.0)
        total += bias[None, :]
    at = ((qd * SD + rd) * OH + qh * SH + rh) * OW + qw * SW + rw
    y_ptr += (sample * channels_out + group * group_out) * OD * OH * OW
    inside = (place < places)[:, None] & (channel < group_out)[None, :]
    tl.store(y_ptr + (channel[None, :].to(tl.int64) * (OD * OH * OW) + at[:, None]), total, mask=inside)


def three(values: tuple[int, ...], filled: int) -> tuple[int, ...]:
    """The values for depth, height and width; `filled` for dimensions that the layer has not."""
    return (filled,) * (3 - len(values)) + tuple(values)


class ModelNew(nn.Module):
    def __init__(self, *settings):
        super().__init__()
        layer = nn.ConvTranspose2d  # variant: layer
        setattr(self, NAME, layer(*settings))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = getattr(self, NAME)
        x, weight = x.contiguous(), layer.weight.contiguous()
        rank = len(layer.kernel_size)
        sizes, kernel = three(tuple(x.shape[2:]), 1), three(layer.kernel_size, 1)
        stride, padding = three(layer.stride, 1), three(layer.padding, 0)
        dilation, extra = three(layer.dilation, 1), three(layer.output_padding, 0)
        settings = zip(sizes, kernel, stride, padding, dilation, extra, strict=True)
        made = [(size - 1) * s - 2 * p + step * (k - 1) + e + 1 for size, k, s, p, step, e in settings]
        y = x.new_empty((x.shape[0], layer.out_channels, *made[3 - rank :]))
        group_in, group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        packed = torch.empty_like(weight)
        pack_kernel[(triton.cdiv(weight.numel(), 256),)](
            weight, packed, weight.numel(), group_in, group_out, math.prod(kernel), PRECISION, BLOCK=256
        )
        block_c = min(BLOCK_C, max(16, triton.next_power_of_2(group_out)))
        block_k = min(BLOCK_K, max(16, triton.next_power_of_2(group_in)))
        places = math.prod(triton.cdiv(size, s) for size, s in zip(made, stride, strict=True))
        tiles_p, tiles_c = triton.cdiv(places, BLOCK_P), triton.cdiv(group_out, block_c)
        every = [s // math.gcd(s, step) for s, step in zip(stride, dilation, strict=True)]
        transposed_kernel[(x.shape[0] * math.prod(stride) * tiles_p * tiles_c, layer.groups)](
            x,
            packed,
            x if layer.bias is None else layer.bias,
            y,
            tiles_p,
            layer.in_channels,
            layer.out_channels,
            layer.groups,
            *sizes,
            *made,
            *(*kernel, *stride, *padding, *dilation, *every),
            HAS_BIAS=layer.bias is not None,
            PRECISION=PRECISION,
            BLOCK_P=BLOCK_P,
            BLOCK_C=block_c,
            BLOCK_K=block_k,
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
        return y
