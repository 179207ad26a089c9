"""The reference by textbook formulas, which shows how much an ordinary kernel in fp32 may err.

PyTorch computes some operations by formulas that stay exact where the obvious one cancels: expm1 for
exp(x) - 1, Welford's method for a variance, sums of sums for a long sum. A kernel with the obvious formula is
in fp32 all the same. So before the judge refuses a kernel for its error, it computes the reference once more
by these formulas, on the same inputs, and accepts an error of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from kbopt.evaluation.judge import tolerance
from kbopt.evaluation.judge.errors import Error, measure_error
from kbopt.evaluation.judge.products import plain
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.slack import OWN_ERROR_FACTOR
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.operations import EachOperation

_FACTOR = 4.0
"""A kernel may err by this many times as much: in another order the same formula rounds otherwise."""
_UNIT = 2.0**-24
"""A number in fp32 is rounded by up to this share of itself."""
_DEVIATIONS = 2.0 / 3.0**0.5
"""Rounding of a serial sum adds up at random. This makes two standard deviations of it, since one sum may be
lucky."""
_DRIFT = 0.25
"""Share of a unit of roundoff by which adding the same number again moves a sum, always in one direction."""
_LAGS, _ALIKE = (1, 2, 3), 2.0**-8
"""A term is added again if it is the same as one so many terms before it, or differs from the last one by at
most this share of itself: beside thousands of terms rounding takes them for the same."""
_SMALLEST = 8.0
"""Terms in a row of up to so many roundoffs of the sum so far may be rounded in one direction too."""
_CHUNKS = 128
"""Partial products that are looked at."""


def answers(reference: Reference, draw: Draw, *, serial: bool = True) -> list[Output]:
    """Return the reference's answers by textbook formulas, with serial sums if `serial`.

    There are two if it has variances: the mean of the squares less the mean's square, and the mean of the
    squares of what is left when the mean is taken off. There is none if the task is not in fp32 or has no
    such operation. An answer that is not finite is left out: a kernel whose formula overflows is wrong.
    """
    found: list[Output] = []
    if reference.precision != "fp32":
        return found
    for two_passes in (False, True):
        try:
            with _Textbook(_Sums(serial=serial, two_passes=two_passes)) as mode:
                output = plain(reference, draw)
        except (TaskError, torch.OutOfMemoryError):  # A formula may need more memory than the operation.
            break
        if mode.used and all(map(tolerance.is_finite, output.tensors)):
            found.append(output)
        if not mode.sums.has_variances:
            break
    return found


def unexplained(
    candidate: Error,
    reference: Reference,
    draw: Draw,
    exact: Sequence[torch.Tensor],
    parts_of: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]] = list,
    *,
    serial: bool = True,
) -> Error:
    """Return the candidate's error on `draw`, without what textbook formulas err as well.

    The error is that of some parts of the outputs; `exact` are these parts of the exact answer.
    """
    rms, median = candidate.rms, candidate.median
    for output in answers(reference, draw, serial=serial):
        formulas = measure_error(parts_of(output.tensors), exact)
        rms = rms if rms > _FACTOR * formulas.rms else 0.0
        median = median if median > _FACTOR * formulas.median else 0.0
    return Error(rms=rms, median=median)


def moved_errors(
    reference: Reference,
    draw: Draw,
    exact: Sequence[torch.Tensor],
    parts_of: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]] = list,
) -> tuple[float, ...]:
    """Return for each output how far textbook formulas excuse an element, as `find_mismatch` takes it.

    `exact` are parts of the exact answer, as for `unexplained`.
    """
    found = [tolerance.largest_errors(parts_of(one.tensors), exact) for one in answers(reference, draw)]
    none = (0.0,) * len(exact)
    return tuple(_FACTOR / OWN_ERROR_FACTOR * max(errors) for errors in zip(none, *found, strict=True))


class _Textbook(EachOperation):
    """A dispatch mode that computes operations on fp32 by `_FORMULAS`. `used` says whether there was one."""

    def __init__(self, sums: _Sums) -> None:
        super().__init__()
        self.used = False
        self.sums = sums

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        formula = _FORMULAS.get(name.removesuffix("_")) or self.sums.formula(name)
        if formula is None or not all(_takes(one) for one in args) or kwargs.get("dtype") is not None:
            return func(*args, **kwargs)
        result = formula(*args, **kwargs)
        if result is None:
            return func(*args, **kwargs)
        self.used = True
        if len(func._schema.returns) > 1:  # The others are what backward needs, or one more result.
            result = result if isinstance(result, tuple) else (result,)
            return (*result, *func(*args, **kwargs)[len(result) :])
        return args[0].copy_(result) if name.endswith("_") else result


def _takes(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or value.dtype == torch.float32


def _dims(tensor: torch.Tensor, dim: int | Sequence[int] | None) -> list[int]:
    given = [dim] if isinstance(dim, int) else list(dim or range(tensor.dim()))
    return [one % tensor.dim() for one in given]


def _count(tensor: torch.Tensor, dim: int | Sequence[int] | None) -> int:
    return math.prod(tensor.shape[one] for one in _dims(tensor, dim))


def _added_serially(terms: torch.Tensor) -> torch.Tensor:
    """Return the running sums over the first dimension, with the error of fp32 if terms are added in order.

    Rounding adds up at random. It always goes one way where the same number is added again, or one that is
    small beside the sum so far. Terms below its roundoff are lost. Adding zero rounds nothing.
    """
    sums = terms.cumsum(0)
    again = torch.zeros_like(terms, dtype=torch.bool)
    for lag in _LAGS:
        again[lag:] |= terms[lag:] == terms[:-lag]
    again[1:] |= (terms[1:] - terms[:-1]).abs() <= _ALIKE * terms[1:].abs()
    roundoff = _UNIT * sums.abs()
    small = terms.abs() <= _SMALLEST * roundoff
    again[1:] |= small[1:] & small[:-1]
    at_random = (roundoff.square() * (terms != 0)).cumsum(0).sqrt()
    lost = torch.where(terms.abs() <= roundoff, terms.abs(), _DRIFT * roundoff * again)
    return sums + _DEVIATIONS * at_random + lost.cumsum(0)


class _Sums:
    """Formulas with sums. If `serial`, a sum errs as one whose terms are added one after the other."""

    def __init__(self, *, serial: bool, two_passes: bool) -> None:
        self._serial = serial
        self._two_passes = two_passes
        self.has_variances = False

    def formula(self, name: str) -> Callable[..., Any] | None:
        """Return that of an operation. If it returns None itself, the operation is left to PyTorch."""
        return getattr(self, _SUMMING.get(name, ""), None)

    def sum(self, x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
        dims = _dims(x, dim)
        if not self._serial or not dims or not x.numel():
            return x.sum(dims or None, keepdim=keepdim)
        terms = x.movedim(dims, list(range(len(dims)))).flatten(0, len(dims) - 1)
        total = _added_serially(terms)[-1]
        return total.reshape([1 if at in dims else n for at, n in enumerate(x.shape)]) if keepdim else total

    def reduced(self, x: torch.Tensor, reduction: int) -> torch.Tensor | None:
        """Return the mean (1) or the sum (2) of a loss."""
        return None if not reduction else self.mean(x) if reduction == 1 else self.sum(x)

    def mse_loss(self, x: torch.Tensor, y: torch.Tensor, reduction: int = 1) -> torch.Tensor | None:
        return self.reduced((x - y).square(), reduction)

    def smooth_l1_loss(self, x: torch.Tensor, y: torch.Tensor, reduction: int = 1, beta: float = 1.0) -> Any:
        return self.reduced(functional.smooth_l1_loss(x, y, reduction="none", beta=beta), reduction)

    def huber_loss(self, x: torch.Tensor, y: torch.Tensor, reduction: int = 1, delta: float = 1.0) -> Any:
        return self.reduced(functional.huber_loss(x, y, reduction="none", delta=delta), reduction)

    def mean(self, x: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
        return self.sum(x, dim, keepdim) / _count(x, dim)

    def moments(self, x: torch.Tensor, dim: Any, keepdim: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and the variance."""
        self.has_variances = True
        mean = self.mean(x, dim, keepdim=True)
        if self._two_passes:
            variance = self.mean((x - mean).square(), dim, keepdim=True)
        else:
            variance = (self.mean(x * x, dim, keepdim=True) - mean * mean).clamp_min(0)
        dims = _dims(x, dim)
        return (mean, variance) if keepdim else (mean.squeeze(dims), variance.squeeze(dims))

    def var_mean(
        self, x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        count = _count(x, dim)
        degrees = count - (1 if correction is None else correction)
        if degrees <= 0:
            return None
        mean, variance = self.moments(x, dim, keepdim)
        return variance * (count / degrees), mean

    def var(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        found = self.var_mean(*args, **kwargs)
        return None if found is None else found[0]

    def std(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        variance = self.var(*args, **kwargs)
        return None if variance is None else variance.sqrt()

    def normalised(
        self, x: torch.Tensor, dims: Sequence[int], eps: float, scale: Any = None, shift: Any = None
    ) -> torch.Tensor:
        mean, variance = self.moments(x, dims, keepdim=True)
        result = (x - mean) / (variance + eps).sqrt()
        result = result if scale is None else result * scale
        return result if shift is None else result + shift

    def layer_norm(self, x: torch.Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
        return self.normalised(x, range(-len(shape), 0), eps, weight, bias)

    def group_norm(self, x: torch.Tensor, weight: Any, bias: Any, *sizes: Any) -> torch.Tensor:
        size, channels, each, groups, eps = sizes
        whole = self.normalised(x.reshape(size, groups, -1), [2], eps).reshape(size, channels, each)
        whole = whole if weight is None else whole * weight[:, None]
        return (whole if bias is None else whole + bias[:, None]).reshape(x.shape)

    def batch_norm(self, x: torch.Tensor, weight: Any, bias: Any, *others: Any) -> torch.Tensor | None:
        training, _, eps = others[2:]  # The first two are running statistics.
        if not training:
            return None
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scale, shift = (one if one is None else one.reshape(shape) for one in (weight, bias))
        return self.normalised(x, [0, *range(2, x.dim())], eps, scale, shift)

    def vector_norm(self, x: torch.Tensor, order: float = 2, dim: Any = None, keepdim: bool = False) -> Any:
        if order == 1:
            return self.sum(x.abs(), dim, keepdim)
        return self.sum(x * x, dim, keepdim).sqrt() if order == 2 else None

    def exponentials(self, x: torch.Tensor, dim: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the largest element, the exponentials of all less it, and their sum."""
        largest = x.amax(_dims(x, dim), keepdim=True)
        powers = (x - largest).exp()
        return largest, powers, self.sum(powers, dim, keepdim=True)

    def softmax(self, x: torch.Tensor, dim: int, _: bool) -> torch.Tensor:
        _, powers, total = self.exponentials(x, dim)
        return powers / total

    def log_softmax(self, x: torch.Tensor, dim: int, _: bool) -> torch.Tensor:
        largest, _, total = self.exponentials(x, dim)
        return x - (largest + total.log())

    def logsumexp(self, x: torch.Tensor, dim: Any, keepdim: bool = False) -> torch.Tensor:
        largest, _, total = self.exponentials(x, dim)
        whole = largest + total.log()
        return whole if keepdim else whole.squeeze(tuple(_dims(x, dim)))

    def cumsum(self, x: torch.Tensor, dim: int) -> torch.Tensor | None:
        if not x.dim() or not self._serial:
            return None
        return _added_serially(x.movedim(dim, 0)).movedim(0, dim)

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
        """Return the matrix product, or that of each pair of matrices."""
        if not self._serial or not left.shape[-1]:
            return None
        pairs = zip(left.tensor_split(_CHUNKS, -1), right.tensor_split(_CHUNKS, -2), strict=True)
        total = at_random = left.new_zeros(())
        for one, other in pairs:
            total = total + one @ other
            terms = (one != 0).to(one.dtype) @ (other != 0).to(one.dtype)
            at_random = at_random + total.square() * terms
        return total + _UNIT * _DEVIATIONS * at_random.sqrt()

    def added_product(
        self, added: torch.Tensor, *factors: torch.Tensor, beta: float = 1, alpha: float = 1
    ) -> Any:
        product = self.product(*factors)
        return None if product is None else beta * added + alpha * product


def _tanh(x: torch.Tensor) -> torch.Tensor:
    return 1 - 2 / ((2 * x).exp() + 1)


def _elu(x: torch.Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> torch.Tensor:
    return torch.where(x > 0, x * scale, ((x * input_scale).exp() - 1) * (alpha * scale))


def _softplus(x: torch.Tensor, beta: float = 1, threshold: float = 20) -> torch.Tensor:
    return torch.where(x * beta > threshold, x, (1 + (x * beta).exp()).log() / beta)


_FORMULAS: Mapping[str, Callable[..., torch.Tensor]] = {
    "tanh": _tanh,
    "elu": _elu,
    "celu": lambda x, alpha=1.0: _elu(x, alpha, 1.0, 1.0 / alpha),
    "softplus": _softplus,
    "mish": lambda x: x * _tanh(_softplus(x)),
    "log_sigmoid_forward": lambda x: -(1 + (-x).exp()).log(),
    "sinh": lambda x: (x.exp() - (-x).exp()) / 2,
    "expm1": lambda x: x.exp() - 1,
    "log1p": lambda x: (1 + x).log(),
}
"""Formulas by the name of PyTorch's operation, which may also be in place."""
_SUMMING = {
    "var": "var",
    "std": "std",
    "var_mean": "var_mean",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "linalg_vector_norm": "vector_norm",
    "mse_loss": "mse_loss",
    "smooth_l1_loss": "smooth_l1_loss",
    "huber_loss": "huber_loss",
    "sum": "sum",
    "mean": "mean",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "logsumexp": "logsumexp",
    "cumsum": "cumsum",
    "mm": "product",
    "bmm": "product",
    "addmm": "added_product",
    "baddbmm": "added_product",
}
"""Methods of `_Sums` by the name of PyTorch's operation."""
