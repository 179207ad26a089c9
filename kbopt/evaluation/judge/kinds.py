"""Kinds of values that a task's contract allows and that its `get_inputs()` does not happen to draw.

Each kind keeps dtypes and shapes. It also keeps signs and zeros in their places, unless its description says
otherwise. Masks, labels and probabilities are left alone, see `values.is_free`. So are symmetric matrices if
the kind would not keep them symmetric. A kind changes every tensor that it can. If it can change none, it
does not apply to the task.

A task's file excludes kinds that its contract does not allow, and may allow `negative`:

    EXCLUDED_VALUES = ["large", "extremes"]
    ALLOWED_VALUES = ["negative"]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from kbopt.core.errors import unknown_name
from kbopt.evaluation.judge.errors import heavy_tailed, sparse_probe
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.judge.tolerance import is_finite
from kbopt.evaluation.judge.values import has_pattern_of_zeros, is_free, is_symmetric, widened
from kbopt.evaluation.sandbox.memory import is_out_of_memory

_SCALE = 64.0
"""Factor of `small` and `large`: about as far as activations of one network are apart. It is a power of two,
so that scaling rounds nothing."""
_LEVELS = 4
"""Values of each sign that `ties` leaves: in a tensor of 2^14 elements each has thousands of equals."""
_MOST_SORTED = 2**26
"""Elements of a tensor that is sorted, at most: sorting takes three times its memory."""
_KEPT_SHARE = 1 / 64
"""Share of the elements that `mostly_zero` keeps."""
_FEWEST_KEPT = 8.0
"""Elements that `mostly_zero` keeps on average at least."""
_HEADROOM_BITS = 6
"""Powers of two between `extremes` and the largest scale for which the reference is finite. Another order of
summation, or the squares in a moment, may need them."""
_MOST_BITS = {torch.float16: 12, torch.bfloat16: 40, torch.float32: 40, torch.float64: 40}
_MOST_BITS |= {torch.complex64: 40, torch.complex128: 40}
"""The largest exponent of a scale. An fp32 number has room for three times as much, because a kernel may
take squares or cubes in fp32 although the reference takes them in float64, as torch.std does on a CPU, or
computes without them."""
_EXTREME_STEPS = (1, 2, 3, 5, 8)
"""The largest exponent is divided by these until the reference is finite: powers of inputs, and exponentials,
need smaller scales."""
_OUTLIER_TRIES = 4
"""Tries of `outlier`: a kernel that looks at half of the elements before it leaves the others out does not
see it in one of two."""
_RANGE_ONLY = re.compile(r"binary_cross_entropy|BCELoss|multinomial|bernoulli|\.long\(\)|\.int\(\)")
"""Names in the source of a task that keeps its range. These take only probabilities, or use their inputs as
indices. Other values raise an assertion on a GPU, which ends the process."""
_FEWEST_IN_ORDER = 8
"""Elements of a dimension that count as ordered on purpose. Of random lines of this length, one in twenty
thousand is ordered by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of values. `description` follows the word "inputs" in messages.

    `ties`: elements become equal, so that the index of the largest may be another. `grows`: elements leave
    the range of the task's own. `moves`: zeros and symmetry are not kept. `integers`: the kind changes
    integers instead of floats. `in_half`: it is for tasks in fp16 and bf16 alone. It is tried `tries` times
    in a row, and drawn as often as that among the timed calls.
    """

    name: str
    description: str
    changed: Callable[[torch.Tensor], torch.Tensor]
    ties: bool = False
    grows: bool = False
    moves: bool = False
    integers: bool = False
    in_half: bool = False
    tries: int = 1

    @property
    def disorders(self) -> bool:
        """Whether a tensor that only grows or only falls, as a running sum does, would no longer do so."""
        return self.moves or self.changed is _sparse


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


def _with_outlier(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with one element multiplied by between the root of the number of elements and that
    number, so that it decides a sum of squares, or a sum.

    In half precision a tolerance has room for a sum of a few thousand terms in place of all, and only a
    term that was left out shows it. Kernels in fp32 that transform their inputs may err on the others.
    """
    power = 0.5 + 0.5 * float(torch.rand(()))
    changed = tensor.clone(memory_format=torch.contiguous_format)
    changed.view(-1)[int(torch.randint(tensor.numel(), ()))] *= tensor.numel() ** power
    return changed


def _ends(tensor: torch.Tensor) -> torch.Tensor:
    is_least = torch.rand(tensor.shape, device=tensor.device) < 0.5
    return torch.where(is_least, tensor.min(), tensor.max())


KINDS = (
    Kind(name="small", description="divided by 64", changed=lambda t: t / _SCALE),
    Kind(name="large", description="times 64", changed=lambda t: t * _SCALE, grows=True),
    Kind(
        name="heavy_tailed",
        description="of which a few are far larger than the rest",
        changed=lambda t: heavy_tailed(t, _SCALE),
        grows=True,
        moves=True,
    ),
    Kind(
        name="outlier",
        description="of which one element is far larger than the rest",
        changed=_with_outlier,
        grows=True,
        moves=True,
        in_half=True,
        tries=_OUTLIER_TRIES,
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
"""Kinds that a task's file has to allow: most tasks mean positive numbers, because they draw with `rand`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The kinds that a task takes, and the factor `scale` of `extremes`.

    `takes_zeros` says that the task takes inputs of which most are zero. Probes of precision need that too.
    """

    kinds: tuple[Kind, ...] = ()
    scale: float = 1.0
    takes_zeros: bool = True

    def varied(self, draw: Draw, kind: Kind) -> Draw | None:
        """Return `draw` with values of this kind. None if there is nothing to change, or no memory for it."""
        try:
            if kind.name == "extremes":
                return _scaled(draw, self.scale) if self.scale > 1.0 else None
            return _varied(draw, kind)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(f"{type(error).__name__}: {error}"):
                raise
            return None


def contract_of(reference: Reference, draw: Draw, *, counts_in_steps: bool) -> Contract:
    """Derive the contract from the task's file, its inputs and its outputs.

    `counts_in_steps` says that an output does, so that ties would change it. Raises TaskError if the file
    names a kind that does not exist.
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
        and not (kind.in_half and reference.precision == "fp32")
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
    """Return the largest tried power of two that keeps the reference finite, less the headroom; 1 if none."""
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
    integers = [t for t in draw.tensors if not (t.is_floating_point() or t.is_complex())]
    wide_integers, several = [t for t in integers if t.dtype != torch.int8], len(integers) > 1
    if not any(chosen) or (kind.integers and several and wide_integers):
        return None  # They may be offsets, or indices into each other. Integers of 8 bits are neither.
    tensors = [
        _changed(t, kind) if is_chosen else t for t, is_chosen in zip(draw.tensors, chosen, strict=True)
    ]
    return replace(draw, tensors=tuple(tensors))


def _changed(tensor: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the tensor with values of the kind, and the same dtype and strides."""
    if tensor.is_complex():  # Each part is of the kind.
        parts = (_changed(part.contiguous(), kind) for part in (tensor.real, tensor.imag))
        return torch.empty_like(tensor).copy_(torch.complex(*parts))
    wide = tensor.float() if tensor.dtype.itemsize < 4 and tensor.is_floating_point() else tensor
    changed = kind.changed(wide)
    if not tensor.is_floating_point():
        return torch.empty_like(tensor).copy_(changed)
    most = torch.finfo(tensor.dtype).max
    if changed.dtype != tensor.dtype:
        return torch.empty_like(tensor).copy_(changed.clamp(-most, most))
    return torch.clamp(changed, -most, most, out=torch.empty_like(tensor))


def _is_structured(tensor: torch.Tensor) -> bool:
    """Return whether moving elements would break a pattern of zeros, or symmetry. A scalar cannot move."""
    return tensor.dim() == 0 or is_symmetric(tensor) or has_pattern_of_zeros(tensor)


def _is_in_order(tensor: torch.Tensor) -> bool:
    """Return whether the tensor only grows or only falls along some dimension, as a running sum does."""
    tensor = widened(tensor.real if tensor.is_complex() else tensor)
    for dim in range(tensor.dim()):
        if tensor.shape[dim] < _FEWEST_IN_ORDER:
            continue
        line = tensor[tuple(slice(None) if at == dim else 0 for at in range(tensor.dim()))]
        # One line that is out of order is enough, so few tensors have to be looked at as a whole.
        if any(_grows(sign * line, -1) and _grows(sign * tensor, dim) for sign in (1, -1)):
            return True
    return False


def _grows(tensor: torch.Tensor, dim: int) -> bool:
    return bool((tensor.diff(dim=dim) >= 0).all())


def _is_range(tensor: torch.Tensor) -> bool:
    """Return whether integers come from a range: they are no mask, no permutation, and do not only grow."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool or not tensor.dim():
        return False
    flat = tensor.flatten().to(torch.int64)
    if len(torch.unique(flat)) in (0, 1, 2, len(flat)):
        return False
    return not bool((tensor.to(torch.int64).diff(dim=-1) >= 0).all())
