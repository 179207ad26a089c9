"""PyTorch's product of a linear layer, then its bias and a pointwise chain in one pass, in place."""
# seed: linear_tail/cuda_library

import torch
import torch.nn as nn
import triton
import triton.language as tl

BLOCK = 2048  # tune: 1024, 2048, 4096, 8192
TAIL_WARPS = 8  # tune: 4, 8, 16


def parts(*n):
    """The layers, parameters and numbers of the task's model by name, of the numbers that it is made of."""
    return {"linear": nn.Linear(*n)}  # variant: parts


def vectors(m, rest):  # noqa: ARG001
    """p and q of the formulas: parameters of the model, or its further inputs, as large as the product."""
    return ()  # variant: vectors


def numbers(m):  # noqa: ARG001
    """s, t and u of the formulas."""
    return ()  # variant: numbers


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


# begin: one pass
@triton.jit
def tail_kernel(
    y_ptr, bias_ptr, p_ptr, q_ptr, p_step, q_step, s, t, u, size,
    CHANNELS: tl.constexpr, PLANE: tl.constexpr, HAS_BIAS: tl.constexpr, P_FULL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The bias and the formula, in place, over memory as it lies: neighbouring values travel together."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    at = first + lane
    inside = at < size
    channel = ((first % (CHANNELS * PLANE)).to(tl.int32) + lane) // PLANE % CHANNELS
    x = tl.load(y_ptr + at, mask=inside)
    if HAS_BIAS:
        x += tl.load(bias_ptr + channel)
    p = tl.load(p_ptr + (at if P_FULL else channel * p_step), mask=inside)
    q = tl.load(q_ptr + channel * q_step)
    tl.store(y_ptr + at, before(x, p, q, s, t, u), mask=inside)


# end: one pass


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


class ModelNew(nn.Module):
    def __init__(self, *settings):
        super().__init__()
        for name, part in parts(*settings).items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        layer = next(part for part in self.children() if isinstance(part, nn.Linear))
        arguments, p_full = formula_arguments(self, layer, x, rest)
        y = nn.functional.linear(x, layer.weight)
        tail_kernel[(triton.cdiv(y.numel(), BLOCK),)](
            y,
            *arguments,
            y.numel(),
            CHANNELS=layer.out_features,
            PLANE=1,
            HAS_BIAS=layer.bias is not None,
            P_FULL=p_full,
            BLOCK=BLOCK,
            num_warps=TAIL_WARPS,
        )
        return y
