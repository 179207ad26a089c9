"""Kinds of values that a task's contract allows and that its `get_inputs()` does not happen to draw.

Each keeps dtypes, shapes, signs and zeros where they are, but for what its description says. Masks, labels
and probabilities are left alone, see `values.is_free`; so is a symmetric matrix by what would not leave it
so. A kind changes every tensor that it can, and does not apply to a task where it changes none.

A task's file excludes kinds that its contract does not hold for, and allows `negative`:

    EXCLUDED_VALUES = ["large", "extremes"]
    ALLOWED_VALUES = ["negative"]
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from kbopt.core.errors import unknown_name
from kbopt.evaluation.judge.errors import sparse_probe
from kbopt.evaluation.judge.reference import Draw, Reference, TaskError
from kbopt.evaluation.judge.tolerance import is_finite
from kbopt.evaluation.judge.values import is_free, is_symmetric, widened
from kbopt.evaluation.sandbox.memory import is_out_of_memory

_SCALE = 64.0
"""A power of two, so that scaling rounds nothing: as far from one as activations of one network are apart."""
_LEVELS = 4
"""Values of each sign that ties leave: every element has thousands of equals in a tensor of 2^14."""
_TAIL = 1.5
"""Standard deviation of the logarithm of heavy-tailed factors: one in three hundred would be above 64."""
_MOST_SORTED = 2**26
"""Elements: sorting takes three times their memory."""
_KEPT_SHARE = 1 / 64
_FEWEST_KEPT = 8.0
_HEADROOM_BITS = 6
"""Taken off the largest scale on which the reference is finite: another order of summation, or the squares
that a moment is made of, may need them."""
_MOST_BITS = {torch.float16: 12, torch.bfloat16: 40, torch.float32: 40, torch.float64: 40}
"""Exponents whose triple an fp32 number has: a kernel may take squares or cubes in fp32, where the reference
takes them in float64, as torch.std does on a CPU, or leaves them out."""
_EXTREME_STEPS = (1, 2, 3, 5, 8)
"""What the exponent of the largest scale is divided by until the reference is finite: powers of the inputs
and exponentials are so for less."""
_RANGE_ONLY = re.compile(r"binary_cross_entropy|BCELoss|multinomial|bernoulli|\.long\(\)|\.int\(\)")
"""Take probabilities alone, or make places of what they are given: a GPU's process does not outlive what they
do to others."""
_FEWEST_IN_ORDER = 8
"""Elements along a dimension that are taken to be in order on purpose: one in twenty thousand lines is by
chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`description` follows "inputs". `ties` where elements become equal, so that the index of the largest is
    another; `grows` where they leave the range of the task's own; `moves` where zeros or a symmetric matrix
    would not be kept.
    """

    name: str
    description: str
    changed: Callable[[torch.Tensor], torch.Tensor]
    ties: bool = False
    grows: bool = False
    moves: bool = False
    integers: bool = False

    @property
    def disorders(self) -> bool:
        """Whether a sum that runs along a dimension would no longer grow, or fall."""
        return self.moves or self.changed is _sparse


def _heavy(tensor: torch.Tensor) -> torch.Tensor:
    factors = torch.randn(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return factors.mul_(_TAIL).exp_().clamp_(max=_SCALE).mul_(tensor)


def _tied(tensor: torch.Tensor) -> torch.Tensor:
    levels = tensor.abs()
    step = levels.max() / _LEVELS
    return levels.div_(step).ceil_().mul_(step).copysign_(tensor)


def _sorted(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.sort(-1).values if tensor.numel() <= _MOST_SORTED else tensor


def _sparse(tensor: torch.Tensor) -> torch.Tensor:
    return sparse_probe(tensor, max(_KEPT_SHARE, _FEWEST_KEPT / tensor.numel()))


def _constant(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[..., :1].expand(tensor.shape)


def _signed(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.rand(tensor.shape, device=tensor.device) < 0.5, tensor, -tensor)


def _ends(tensor: torch.Tensor) -> torch.Tensor:
    is_least = torch.rand(tensor.shape, device=tensor.device) < 0.5
    return torch.where(is_least, tensor.min(), tensor.max())


KINDS = (
    Kind(name="small", description="divided by 64", changed=lambda t: t / _SCALE),
    Kind(name="large", description="times 64", changed=lambda t: t * _SCALE, grows=True),
    Kind(
        name="heavy_tailed",
        description="of which a few are far larger than the rest",
        changed=_heavy,
        grows=True,
        moves=True,
    ),
    Kind(name="ties", description="with many equal values", changed=_tied, ties=True),
    Kind(name="sorted", description="sorted along the last dimension", changed=_sorted, moves=True),
    Kind(name="mostly_zero", description="of which most are zero", changed=_sparse, ties=True),
    Kind(
        name="constant_rows", description="with rows of one value", changed=_constant, ties=True, moves=True
    ),
    Kind(name="extremes", description="far larger than those drawn", changed=lambda t: t, grows=True),
    Kind(
        name="integer_ends",
        description="whose integers are the smallest and the largest",
        changed=_ends,
        ties=True,
        integers=True,
    ),
    Kind(name="negative", description="of either sign", changed=_signed, grows=True, moves=True),
)
_ONLY_IF_ALLOWED = ("negative",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The kinds that a task takes. `scale` is what `extremes` multiplies with. Whether it `takes_zeros`, in
    inputs of which most are, decides about probes of precision, too.
    """

    kinds: tuple[Kind, ...] = ()
    scale: float = 1.0
    takes_zeros: bool = True

    def varied(self, draw: Draw, kind: Kind) -> Draw | None:
        """`draw` with values of this kind, or None where it has nothing to change, or no memory for it."""
        try:
            if kind.name == "extremes":
                return _scaled(draw, self.scale) if self.scale > 1.0 else None
            return _varied(draw, kind)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(f"{type(error).__name__}: {error}"):
                raise
            return None


def contract_of(reference: Reference, draw: Draw, *, counts_in_steps: bool) -> Contract:
    """What the task's file says, and what its inputs and outputs, which may count in steps, show. Raises
    TaskError for a name that is no kind.
    """
    excluded, allowed = (_names(reference, name) for name in ("EXCLUDED_VALUES", "ALLOWED_VALUES"))
    keeps_range = _RANGE_ONLY.search(reference.source) is not None
    kinds = tuple(
        kind
        for kind in KINDS
        if kind.name not in excluded
        and (kind.name in allowed or kind.name not in _ONLY_IF_ALLOWED)
        and not (kind.grows and keeps_range)
        and not (kind.ties and counts_in_steps)
    )
    has_extremes = any(kind.name == "extremes" for kind in kinds)
    return Contract(
        kinds=kinds,
        scale=_extreme_scale(reference, draw) if has_extremes else 1.0,
        takes_zeros="mostly_zero" not in excluded,
    )


def _names(reference: Reference, variable: str) -> tuple[str, ...]:
    names = tuple(getattr(reference.module, variable, ()))
    known = [kind.name for kind in KINDS]
    for name in names:
        if name not in known:
            raise TaskError(str(unknown_name(f"kind of values in the task's {variable}", str(name), known)))
    return names


def _extreme_scale(reference: Reference, draw: Draw) -> float:
    """The largest tried power of two with which the reference is finite, less headroom; 1 where there is
    none.
    """
    free = [tensor for tensor in draw.tensors if is_free(tensor)]
    if not free:
        return 1.0
    most_bits = min(_MOST_BITS.get(tensor.dtype, 0) for tensor in free)
    if not most_bits:
        return 1.0
    for step in _EXTREME_STEPS:
        bits = most_bits // step
        try:
            output = reference.run(_scaled(draw, 2.0**bits).arguments())
        except TaskError:
            continue
        if all(map(is_finite, output.tensors)):
            return 2.0 ** max(0, bits - _HEADROOM_BITS)
    return 1.0


def _scaled(draw: Draw, scale: float) -> Draw:
    return replace(draw, tensors=tuple(t * scale if is_free(t) else t.clone() for t in draw.tensors))


def _varied(draw: Draw, kind: Kind) -> Draw | None:
    takes = _is_range if kind.integers else is_free
    chosen = [
        takes(t) and not (kind.moves and _is_structured(t)) and not (kind.disorders and _is_in_order(t))
        for t in draw.tensors
    ]
    wide_integers = [t for t in draw.tensors if not t.is_floating_point() and t.dtype != torch.int8]
    several = sum(not t.is_floating_point() for t in draw.tensors) > 1
    if not any(chosen) or (kind.integers and several and wide_integers):
        return None  # Offsets, or indices into each other, which of 8 bits none are.
    tensors = [
        _changed(t, kind) if is_chosen else t for t, is_chosen in zip(draw.tensors, chosen, strict=True)
    ]
    return replace(draw, tensors=tuple(tensors))


def _changed(tensor: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Of the same dtype and strides."""
    wide = tensor.float() if tensor.dtype.itemsize < 4 and tensor.is_floating_point() else tensor
    changed = kind.changed(wide)
    if tensor.is_floating_point():
        most = torch.finfo(tensor.dtype).max
        changed = changed.clamp(-most, most)
    return torch.empty_like(tensor).copy_(changed)


def _is_structured(tensor: torch.Tensor) -> bool:
    """Whether moving its elements would break a pattern: zeros at their places, symmetry."""
    return tensor.dim() == 0 or is_symmetric(tensor) or bool((tensor == 0).any())


def _is_in_order(tensor: torch.Tensor) -> bool:
    """Whether it grows along some dimension, or falls, everywhere: as a running sum does."""
    tensor = widened(tensor)
    for dim in range(tensor.dim()):
        if tensor.shape[dim] < _FEWEST_IN_ORDER:
            continue
        line = tensor[tuple(slice(None) if at == dim else 0 for at in range(tensor.dim()))]
        # A line that is out of order says all; few tensors have to be looked at whole.
        if any(_grows(sign * line, -1) and _grows(sign * tensor, dim) for sign in (1, -1)):
            return True
    return False


def _grows(tensor: torch.Tensor, dim: int) -> bool:
    return bool((tensor.diff(dim=dim) >= 0).all())


def _is_range(tensor: torch.Tensor) -> bool:
    """Whether integers are drawn from a range: no masks, no offsets that only grow, no permutations."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool or not tensor.dim():
        return False
    flat = tensor.flatten().to(torch.int64)
    if len(torch.unique(flat)) in (0, 1, 2, len(flat)):
        return False
    return not bool((tensor.to(torch.int64).diff(dim=-1) >= 0).all())


def pick(contract: Contract, rng: random.Random) -> Kind | None:
    """One of the kinds, at random."""
    return rng.choice(contract.kinds) if contract.kinds else None
