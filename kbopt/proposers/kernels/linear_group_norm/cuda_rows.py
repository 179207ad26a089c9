"""A linear layer on tensor cores with a pointwise chain, and a group normalisation with another.

A group of a row's features is in registers while its mean and variance are found, so that the product is
read once. Without a normalisation layer for groups, a row is one group without weights.
"""
# seed: linear_group_norm/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK_M = 128  # tune: 64, 128
BLOCK_N = 128  # tune: 64, 128
BLOCK_K = 16  # tune: 16, 32
GROUP_M = 8  # tune: 1, 4, 8, 16
NUM_WARPS = 8  # tune: 4, 8
NUM_STAGES = 3  # tune: 2, 3, 4
SPAN = 1024  # tune: 512, 1024, 2048, 4096
FEW_TILES = 66  # tune: 0, 66, 132
"""So few tiles, half as many as an H200 has multiprocessors, are made of half the columns."""
GROUP_BLOCK = 4096  # tune: 1024, 2048, 4096, 8192
GROUP_WARPS = 8  # tune: 4, 8, 16


def parts(*n):
    """The layers, parameters and numbers of the task's model by name, of the numbers that it is made of."""
    return {"linear": nn.Linear(*n[:2]), "norm": nn.GroupNorm(n[2], n[1])}  # variant: parts


def vectors(m, rest):  # noqa: ARG001
    """p and q of the formulas: parameters of the model, or its further inputs, as large as the product."""
    return ()  # variant: vectors


def numbers(m):  # noqa: ARG001
    """s, t and u of the formulas."""
    return ()  # variant: numbers


def finished(m, y):  # noqa: ARG001
    """The model's output of the normalised values."""
    return y  # variant: finish


# begin: activations in Triton
@triton.jit
def tanh_(x):
    """The polynomial for |x| < 0.625 is that of Cephes' tanhf."""
    z, a = x * x, tl.abs(x)
    p = -5.70498872745e-3 * z + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    far = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, x + x * z * p, tl.where(x < 0.0, -far, far))


@triton.jit
def sigmoid_(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def swish_(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def mish_(x):
    """tanh(log(1 + e)) = 1 / (1 + 2 / w) with w = e (e + 2), which is 1 in fp32 above x = 20."""
    e = tl.exp(tl.minimum(x, 20.0))
    return x / (1.0 + 2.0 / (e * (e + 2.0)))


@triton.jit
def gelu_(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.70710678))


@triton.jit
def clamp_(x, low, high):
    return tl.where(x != x, x, tl.minimum(tl.maximum(x, low), high))


@triton.jit
def hard_swish_(x):
    return x * tl.minimum(tl.maximum(x + 3.0, 0.0), 6.0) / 6.0


@triton.jit
def relu_(x):
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def leaky_(x, slope):
    return tl.where(x > 0.0, x, x * slope)


# end: activations in Triton


@triton.jit
def before(x, p, q, s, t, u):  # noqa: ARG001
    """What becomes of each value of the product, by vectors p and q over channels and numbers s, t and u."""
    return x  # variant: before


@triton.jit
def after(x, p, q, s, t, u):  # noqa: ARG001
    return x  # variant: after


# begin: product and first formula
@triton.jit
def product_kernel(
    a_ptr, w_ptr, y_ptr, bias_ptr, p_ptr, q_ptr, p_step, q_step, s, t, u, m, n, depth,
    HAS_BIAS: tl.constexpr, P_FULL: tl.constexpr, HAS_FORMULA: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    SPAN: tl.constexpr,
):  # fmt: skip
    """A (m, depth) times W (n, depth) transposed, its bias and the first formula.

    Each factor is the sum of two TF32 numbers, which keeps fp32's precision. Tensor cores cut off what they
    add, so sums of more than SPAN terms are added by the other cores, which round.
    """
    # Programs go by groups of GROUP_M rows of tiles, whose factors stay in the L2 cache.
    columns = tl.cdiv(n, BLOCK_N)
    first = tl.program_id(0) // (GROUP_M * columns) * GROUP_M
    height = min(tl.cdiv(m, BLOCK_M) - first, GROUP_M)
    within = tl.program_id(0) % (GROUP_M * columns)
    row = (first + within % height).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (within // height).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    a_at = a_ptr + row[:, None] * depth + k[None, :]
    w_at = w_ptr + column[None, :] * depth + k[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for begin in range(0, depth, SPAN):
        part = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(begin, tl.minimum(begin + SPAN, depth), BLOCK_K):
            a = tl.load(a_at, mask=(row < m)[:, None] & (k < depth - start)[None, :], other=0.0)
            w = tl.load(w_at, mask=(k < depth - start)[:, None] & (column < n)[None, :], other=0.0)
            part = tl.dot(a, w, part, input_precision="tf32x3")
            a_at += BLOCK_K
            w_at += BLOCK_K
        total += part
    if HAS_BIAS:
        total += tl.load(bias_ptr + column, mask=column < n, other=0.0)[None, :]
    to = row[:, None] * n + column[None, :]
    inside = (row < m)[:, None] & (column < n)[None, :]
    if P_FULL:
        p = tl.load(p_ptr + to, mask=inside, other=0.0)
    else:
        p = tl.load(p_ptr + column * p_step, mask=column < n, other=0.0)[None, :]
    q = tl.load(q_ptr + column * q_step, mask=column < n, other=0.0)[None, :]
    if HAS_FORMULA:
        total = before(total, p, q, s, t, u)
    tl.store(y_ptr + to, total, mask=inside)


def multiplied(layer, x, arguments, p_full, has_formula=True):
    """What the layer makes of x, and the first formula of it."""
    a, weight = x.contiguous(), layer.weight.contiguous()
    n, depth = weight.shape
    m = a.numel() // depth
    y = a.new_empty((*a.shape[:-1], n))
    block_m, block_n = min(BLOCK_M, max(16, triton.next_power_of_2(m))), BLOCK_N
    if triton.cdiv(m, block_m) * triton.cdiv(n, block_n) < FEW_TILES:
        block_n //= 2
    product_kernel[(triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)](
        a, weight, y, *arguments, m, n, depth, HAS_BIAS=layer.bias is not None, P_FULL=p_full,
        HAS_FORMULA=has_formula, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=BLOCK_K, GROUP_M=GROUP_M,
        SPAN=SPAN, num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
    return y


# end: product and first formula


# begin: formula's arguments of features
def formula_arguments(m, layer, x, rest):
    """bias, p, q, the steps of p and q from feature to feature, s, t and u; and whether p is of full size."""
    bias = x if layer.bias is None else layer.bias
    given = [v.contiguous() for v in vectors(m, rest)]
    p, q = [*given, x, x][:2]
    p_step, q_step = (int(v is not x and v.numel() > 1) for v in (p, q))
    s, t, u = ([float(number) for number in numbers(m)] + [0.0] * 3)[:3]
    return (bias, p, q, p_step, q_step, s, t, u), p is not x and p.numel() > layer.out_features


# end: formula's arguments of features


@triton.jit
def group_kernel(
    y_ptr, weight_ptr, bias_ptr, p_ptr, q_ptr, p_step, q_step, s, t, u, segments, groups, length, eps,
    HAS_WEIGHT: tl.constexpr, P_FULL: tl.constexpr, SEGMENTS: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64) * SEGMENTS + tl.arange(0, SEGMENTS)
    lane = tl.arange(0, LENGTH)
    inside = (segment < segments)[:, None] & (lane < length)[None, :]
    at = segment[:, None] * length + lane[None, :]
    feature = (segment % groups)[:, None] * length + lane[None, :]
    x = tl.load(y_ptr + at, mask=inside, other=0.0)
    mean = tl.sum(x, axis=1) / length
    away = tl.where(inside, x - mean[:, None], 0.0)
    variance = tl.sum(away * away, axis=1) / length
    x = away * (1.0 / tl.sqrt_rn(variance + eps))[:, None]
    if HAS_WEIGHT:
        x = x * tl.load(weight_ptr + feature, mask=inside) + tl.load(bias_ptr + feature, mask=inside)
    p = tl.load(p_ptr + (at if P_FULL else feature * p_step), mask=inside)
    q = tl.load(q_ptr + feature * q_step, mask=inside)
    tl.store(y_ptr + at, after(x, p, q, s, t, u), mask=inside)


class ModelNew(nn.Module):
    def __init__(self, *settings):
        super().__init__()
        for name, part in parts(*settings).items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        layer = next(part for part in self.children() if isinstance(part, nn.Linear))
        norm = next(part for part in self.children() if hasattr(part, "eps"))
        arguments, p_full = formula_arguments(self, layer, x, rest)
        y = multiplied(layer, x, arguments, p_full)
        groups = getattr(norm, "num_groups", 1)
        length, segments = layer.out_features // groups, y.numel() // layer.out_features * groups
        size = triton.next_power_of_2(length)
        together = max(1, GROUP_BLOCK // size)
        group_kernel[(triton.cdiv(segments, together),)](
            y,
            y if norm.weight is None else norm.weight,
            y if norm.bias is None else norm.bias,
            *arguments[1:],
            segments,
            groups,
            length,
            norm.eps,
            HAS_WEIGHT=norm.weight is not None,
            P_FULL=p_full,
            SEGMENTS=together,
            LENGTH=size,
            num_warps=GROUP_WARPS,
        )
        return finished(self, y)
