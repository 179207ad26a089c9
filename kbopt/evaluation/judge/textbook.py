"""The reference by textbook formulas, which shows how much an ordinary kernel in fp32 may err.

PyTorch computes some operations by formulas that stay exact where the obvious one cancels: expm1 for
exp(x) - 1, Welford's method for a variance, sums of sums for a long sum. A kernel with the obvious formula is
in fp32 all the same. So before the judge refuses a kernel for its error, it computes the reference once more
by these formulas, on the same inputs, and accepts an error of the same size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from kbopt.evaluation.judge import tolerance
from kbopt.evaluation.judge.errors import Error, measure_error
from kbopt.evaluation.judge.products import plain
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.slack import OWN_ERROR_FACTOR
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.operations import EachOperation

_FACTOR = 4.0
"""A kernel may err by this many times as much: in another order the same formula rounds otherwise."""
_MOST_TERMS = 2**17
"""Terms that one thread of a kernel adds up at most, since it takes a tenth of a second for them. Longer sums
are left to PyTorch."""
_MOST_ADDITIONS = {"cuda": 2**36, "cpu": 2**30}
"""Additions of a serial sum at most: a fifth of a second of a GPU, and a second of a CPU."""


def answer(reference: Reference, draw: Draw) -> Output | None:
    """Return the reference's answer by textbook formulas.

    None if the task is not in fp32, if it has no such operation, and if the answer is not finite: a kernel
    whose formula overflows is wrong.
    """
    if reference.precision != "fp32":
        return None
    try:
        with _Textbook() as mode:
            output = plain(reference, draw)
    except TaskError:  # A formula may need memory that the operation itself does not need.
        return None
    return output if mode.used and all(map(tolerance.is_finite, output.tensors)) else None


def unexplained(
    candidate: Error,
    reference: Reference,
    draw: Draw,
    exact: Sequence[torch.Tensor],
    parts_of: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
) -> Error:
    """Return the candidate's error on `draw`, without what textbook formulas err as well.

    The error is that of some parts of the outputs; `exact` are these parts of the exact answer.
    """
    output = answer(reference, draw)
    if output is None:
        return candidate
    formulas = measure_error(parts_of(output.tensors), exact)
    return Error(
        rms=candidate.rms if candidate.rms > _FACTOR * formulas.rms else 0.0,
        median=candidate.median if candidate.median > _FACTOR * formulas.median else 0.0,
    )


def moved_errors(reference: Reference, draw: Draw, exact: Output) -> tuple[float, ...]:
    """Return for each output how far textbook formulas excuse an element, as `find_mismatch` takes it."""
    output = answer(reference, draw)
    if output is None:
        return (0.0,) * len(exact.tensors)
    largest = tolerance.largest_errors(output.tensors, exact.tensors)
    return tuple(_FACTOR / OWN_ERROR_FACTOR * error for error in largest)


class _Textbook(EachOperation):
    """A dispatch mode that computes operations on fp32 by `_FORMULAS`. `used` says whether there was one."""

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        formula = _FORMULAS.get(name) or _FORMULAS.get(name.removesuffix("_"))
        if formula is None or not all(_takes(one) for one in args) or kwargs.get("dtype") is not None:
            return func(*args, **kwargs)
        result = formula(*args, **kwargs)
        if result is None:
            return func(*args, **kwargs)
        self.used = True
        if len(func._schema.returns) > 1:  # The others are what backward needs, or one more result.
            result = result if isinstance(result, tuple) else (result,)
            return (*result, *func(*args, **kwargs)[len(result) :])
        return args[0].copy_(result) if name in _IN_PLACE else result


def _takes(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or value.dtype == torch.float32


def _dims(tensor: torch.Tensor, dim: int | Sequence[int] | None) -> list[int]:
    given = [dim] if isinstance(dim, int) else list(dim or range(tensor.dim()))
    return [one % tensor.dim() for one in given]


def _count(tensor: torch.Tensor, dim: int | Sequence[int] | None) -> int:
    return math.prod(tensor.shape[one] for one in _dims(tensor, dim))


def _sum(tensor: torch.Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> torch.Tensor:
    """Return the sum over `dim`, one term after the other if that does not take too long."""
    dims, shape = _dims(tensor, dim), list(tensor.shape)
    is_short = 0 < _count(tensor, dim) <= _MOST_TERMS
    if not dims or not is_short or tensor.numel() > _MOST_ADDITIONS[tensor.device.type]:
        return tensor.sum(dims or None, keepdim=keepdim)
    first, *others = tensor.movedim(dims, list(range(len(dims)))).flatten(0, len(dims) - 1)
    total = first.clone()
    for term in others:
        total += term
    return total.reshape([1 if at in dims else size for at, size in enumerate(shape)]) if keepdim else total


def _mean(tensor: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    return _sum(tensor, dim, keepdim) / _count(tensor, dim)


def _moments(tensor: torch.Tensor, dim: Any, keepdim: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean, and the mean of the squares less the mean's square."""
    mean = _mean(tensor, dim, keepdim)
    return mean, (_mean(tensor * tensor, dim, keepdim) - mean * mean).clamp_min(0)


def _var_mean(
    tensor: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[torch.Tensor, torch.Tensor] | None:
    count = _count(tensor, dim)
    degrees = count - (1 if correction is None else correction)
    if degrees <= 0:
        return None
    mean, variance = _moments(tensor, dim, keepdim)
    return variance * (count / degrees), mean


def _var(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    found = _var_mean(*args, **kwargs)
    return None if found is None else found[0]


def _std(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    variance = _var(*args, **kwargs)
    return None if variance is None else variance.sqrt()


def _normalised(
    tensor: torch.Tensor, dims: Sequence[int], eps: float, scale: Any, shift: Any
) -> torch.Tensor:
    mean, variance = _moments(tensor, dims, keepdim=True)
    result = (tensor - mean) / (variance + eps).sqrt()
    result = result if scale is None else result * scale
    return result if shift is None else result + shift


def _layer_norm(x: torch.Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> torch.Tensor:
    return _normalised(x, range(-len(shape), 0), eps, weight, bias)


def _group_norm(
    x: torch.Tensor, weight: Any, bias: Any, size: int, channels: int, each: int, groups: int, eps: float
) -> torch.Tensor:
    whole = _normalised(x.reshape(size, groups, -1), [2], eps, None, None).reshape(size, channels, each)
    whole = whole if weight is None else whole * weight[:, None]
    return (whole if bias is None else whole + bias[:, None]).reshape(x.shape)


def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, *others: Any) -> torch.Tensor | None:
    training, _, eps = others[2:]  # The first two are running statistics.
    if not training:
        return None
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale, shift = (one if one is None else one.reshape(shape) for one in (weight, bias))
    return _normalised(x, [0, *range(2, x.dim())], eps, scale, shift)


def _vector_norm(x: torch.Tensor, order: float = 2, dim: Any = None, keepdim: bool = False) -> Any:
    if order == 1:
        return _sum(x.abs(), dim, keepdim)
    return _sum(x * x, dim, keepdim).sqrt() if order == 2 else None


def _exponentials(x: torch.Tensor, dim: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the largest element, the exponentials of the others less it, and their sum."""
    largest = x.amax(_dims(x, dim), keepdim=True)
    powers = (x - largest).exp()
    return largest, powers, _sum(powers, dim, keepdim=True)


def _softmax(x: torch.Tensor, dim: int, _: bool) -> torch.Tensor:
    _, powers, total = _exponentials(x, dim)
    return powers / total


def _log_softmax(x: torch.Tensor, dim: int, _: bool) -> torch.Tensor:
    largest, _, total = _exponentials(x, dim)
    return x - (largest + total.log())


def _logsumexp(x: torch.Tensor, dim: Any, keepdim: bool = False) -> torch.Tensor:
    largest, _, total = _exponentials(x, dim)
    whole = largest + total.log()
    return whole if keepdim else whole.squeeze(tuple(_dims(x, dim)))


def _cumsum(x: torch.Tensor, dim: int) -> torch.Tensor | None:
    if not x.dim() or not 0 < x.shape[dim] <= _MOST_TERMS or x.numel() > _MOST_ADDITIONS[x.device.type]:
        return None
    sums = x.clone()
    for before, line in itertools.pairwise(sums.movedim(dim, 0)):
        line.add_(before)
    return sums


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    """Return the matrix product, or that of each pair of matrices, one term after the other."""
    terms = left.shape[-1]
    size = left.numel() * right.shape[-1]
    if not 0 < terms <= _MOST_TERMS or size > _MOST_ADDITIONS[left.device.type]:
        return None
    total = left[..., :1] * right[..., :1, :]
    for at in range(1, terms):
        total += left[..., at : at + 1] * right[..., at : at + 1, :]
    return total


def _added_product(added: torch.Tensor, *factors: torch.Tensor, beta: float = 1, alpha: float = 1) -> Any:
    product = _product(*factors)
    return None if product is None else beta * added + alpha * product


def _tanh(x: torch.Tensor) -> torch.Tensor:
    return 1 - 2 / ((2 * x).exp() + 1)


def _elu(x: torch.Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> torch.Tensor:
    return torch.where(x > 0, x * scale, ((x * input_scale).exp() - 1) * (alpha * scale))


def _softplus(x: torch.Tensor, beta: float = 1, threshold: float = 20) -> torch.Tensor:
    return torch.where(x * beta > threshold, x, (1 + (x * beta).exp()).log() / beta)


_FORMULAS: Mapping[str, Callable[..., Any]] = {
    "tanh": _tanh,
    "elu": _elu,
    "celu": lambda x, alpha=1.0: _elu(x, alpha, 1.0, 1.0 / alpha),
    "softplus": _softplus,
    "mish": lambda x: x * _tanh(_softplus(x)),
    "log_sigmoid_forward": lambda x: -(1 + (-x).exp()).log(),
    "expm1": lambda x: x.exp() - 1,
    "log1p": lambda x: (1 + x).log(),
    "var": _var,
    "std": _std,
    "var_mean": _var_mean,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "linalg_vector_norm": _vector_norm,
    "sum": _sum,
    "mean": _mean,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "cumsum": _cumsum,
    "mm": _product,
    "bmm": _product,
    "addmm": _added_product,
    "baddbmm": _added_product,
}
"""Formulas by the name of PyTorch's operation. One that returns None leaves the operation to PyTorch."""
_IN_PLACE = ("tanh_", "elu_", "celu_", "expm1_", "log1p_", "mish_", "cumsum_")
