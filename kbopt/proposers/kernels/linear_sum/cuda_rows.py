"""The sum of all features of a linear layer: a product with the sum of its weights' rows.

That sum is formed at each call, by several programs for each column. For finite numbers it is what the layer
and a sum give, by far fewer multiplications.
"""
# seed: linear_sum/cuda_rows

import torch
import torch.nn as nn
import triton
import triton.language as tl

ROWS = 32  # tune: 16, 32, 64
COLUMNS = 128  # tune: 64, 128, 256
PARTS = 16  # tune: 4, 8, 16, 32
SUM_WARPS = 4  # tune: 4, 8
ROW_WARPS = 8  # tune: 4, 8, 16

IS_ADDED = tl.constexpr(False)  # variant: is_added


def parts(*n):
    """The layers, parameters and numbers of the task's model by name, of the numbers that it is made of."""
    return {"linear": nn.Linear(*n)}  # variant: parts


def vectors(m, rest):  # noqa: ARG001
    """p and q of the formulas: parameters of the model, or its further inputs, as large as the product."""
    return ()  # variant: vectors


def numbers(m):  # noqa: ARG001
    """s, t and u of the formulas."""
    return ()  # variant: numbers


def layer_of(m):
    """What has the weights (features, inputs)."""
    return m.linear  # variant: layer


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
def after(x, p, q, s, t, u):  # noqa: ARG001
    """What becomes of the sum x without biases, by numbers p and q that are in memory."""
    return x  # variant: after


@triton.jit
def weights_kernel(w_ptr, partial_ptr, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row, part = tl.arange(0, ROWS), tl.program_id(1)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(part * ROWS, rows, tl.num_programs(1) * ROWS):
        inside = (row < rows - start)[:, None] & (column < columns)[None, :]
        at = (start + row)[:, None].to(tl.int64) * columns + column[None, :]
        total += tl.load(w_ptr + at, mask=inside, other=0.0)
    tl.store(partial_ptr + part * columns + column, tl.sum(total, axis=0), mask=column < columns)


@triton.jit
def row_kernel(x_ptr, sums_ptr, y_ptr, p_ptr, q_ptr, s, t, u, columns, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * columns + column, mask=column < columns, other=0.0)
    total = tl.sum(x * tl.load(sums_ptr + column, mask=column < columns, other=0.0), axis=0)
    result = after(total, tl.load(p_ptr), tl.load(q_ptr), s, t, u)
    if IS_ADDED:
        tl.store(y_ptr + row * columns + column, x + result, mask=column < columns)
    else:
        tl.store(y_ptr + row, result)


class ModelNew(nn.Module):
    def __init__(self, *settings):
        super().__init__()
        for name, part in parts(*settings).items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, weight = x.contiguous(), layer_of(self).weight.contiguous()
        rows, columns = weight.shape
        partial = x.new_empty((PARTS, columns))
        weights_kernel[(triton.cdiv(columns, COLUMNS), PARTS)](
            weight, partial, rows, columns, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=SUM_WARPS
        )
        p, q = [*vectors(self, ()), x, x][:2]
        s, t, u = ([float(number) for number in numbers(self)] + [0.0] * 3)[:3]
        samples = x.numel() // columns
        y = x.new_empty((samples, columns if IS_ADDED.value else 1))
        block = triton.next_power_of_2(columns)
        row_kernel[(samples,)](x, partial.sum(0), y, p, q, s, t, u, columns, BLOCK=block, num_warps=ROW_WARPS)
        return y
