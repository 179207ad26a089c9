"""Makes inputs that a candidate cannot tell from a task's own, and that show what it takes for granted.

These inputs travel among the timed calls. Zeros stay zero, and a symmetric matrix stays symmetric, so that
the task's contract holds for them too. Masks and labels, which are discrete, and probabilities, which sum to
one, are left alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import torch

from kbopt.evaluation.judge.reference import Draw
from kbopt.evaluation.numerics import is_float8

_SAMPLE = 4096
"""Elements of a tensor, about, by which its kind of values is told."""
_FEWEST_VALUES = 16
"""Distinct values in that sample. A tensor with fewer holds a mask or labels."""
_SLICES_SHARE = 64
"""One in so many slices of a dimension is changed, so that no statistic of the whole input shows it."""
_SMALL = 2.0**-12
"""Factor of most elements of a slice whose sums shall have few terms. Rounding them to TF32 changes a sum by
about as much as rounding in fp32 does. It is not zero, because the task's own inputs may hold no zeros."""
_SHARES_ROUND = 2.0**-6
"""Difference from one of a sum of probabilities at most: rounding each of them to bf16 changes it by less."""
_FEWEST_TERMS = 8
"""Elements that a slice keeps on average at least."""
_CHANCE_ZEROS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Share of zeros that may be drawn by chance: twice that of torch.rand in that dtype."""
_CHANCE_ZEROS_8 = 2.0**-8
"""The same for floats of 8 bits: four times what rounding random numbers to e4m3 leaves."""
_CHANCE_ZEROS_32 = 2.0**-20
"""The same for all others: sixteen times what torch.rand draws in fp32, which is one in 2^24."""
_FEW_ZEROS = 3
"""So many zeros may be chance whatever their share is, in a tensor of `_SAMPLE` elements or more."""
_SHARE_IN_LINE = 0.25
"""Share of the zeros in one slice of a long dimension, or on one diagonal, that makes them a pattern."""
_LONG = 64
"""Elements of a long dimension at least: chance hardly ever puts four zeros of eight into one slice."""
_LEAST_SCALE = 0.25
"""The smallest scale of a slice. If it keeps a quarter of its spread, and its mean moves by at most two
standard deviations, a sum of squares loses no more than a few bits by cancellation."""


def shifted(draw: Draw, rng: random.Random, *, moves: bool) -> Draw:
    """Return the draw with other distributions.

    In each tensor all slices of some dimension, or a few of them, are scaled down to at least a quarter, and
    moved within the tensor's range. If not `moves`, and for a tensor of complex numbers or with a pattern of
    zeros, slices are only scaled, by powers of two: no two elements become equal by rounding.
    """
    tensors = tuple(_shifted(t, rng, moves=moves) if is_free(t) else t for t in draw.tensors)
    return replace(draw, tensors=tensors)


def with_other_slices(draw: Draw, share: float, scale: float, rng: random.Random) -> Iterator[Draw]:
    """Yield draws in which a few slices of one tensor keep `share` of their elements, and at least a handful.

    The other elements of these slices become small, and all of them are multiplied by `scale`. There is one
    draw for each tensor and dimension that has slices, in random order.
    """
    places = [
        (number, dim)
        for number, tensor in enumerate(draw.tensors)
        if is_free(tensor) and not is_float8(tensor) and not is_symmetric(tensor)
        for dim in range(tensor.dim())
        if tensor.shape[dim] > 1 and tensor.dim() > 1
    ]
    for number, dim in rng.sample(places, len(places)):
        tensors = list(draw.tensors)
        changed = tensors[number].clone()
        chosen = _some_slices(changed, dim, rng)
        part = changed.index_select(dim, chosen)
        least = _FEWEST_TERMS * len(chosen) / part.numel()
        kept = torch.rand(part.shape, device=part.device) < max(share, least)
        changed.index_copy_(dim, chosen, torch.where(kept, part, part * _SMALL) * scale)
        tensors[number] = changed
        yield replace(draw, tensors=tuple(tensors))


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return floats of 8 bits in fp32, because a CPU does not compute with them, and other tensors as is."""
    return tensor.float() if is_float8(tensor) else tensor


def is_free(tensor: torch.Tensor) -> bool:
    """Return whether the tensor may hold other values of its range. Complex numbers of size one may not."""
    if tensor.is_complex():
        size = tensor.flatten()[:: max(1, tensor.numel() // _SAMPLE)].abs()
        on_circle = bool(((size - 1).abs() < _SHARES_ROUND).all())
        return not on_circle and is_free(tensor.real) and is_free(tensor.imag)
    if not tensor.is_floating_point() or tensor.numel() <= _FEWEST_VALUES:
        return False
    tensor = widened(tensor)
    step = max(1, tensor.numel() // _SAMPLE)
    sample = tensor.flatten()[::step].float()
    if not bool(torch.isfinite(sample).all()) or len(torch.unique(sample)) < _FEWEST_VALUES:
        return False
    return not _are_shares(tensor)


def _are_shares(tensor: torch.Tensor) -> bool:
    """Return whether lines of the tensor along some dimension are probabilities, which sum to one."""
    if not tensor.dim() or not tensor.numel() or not bool(tensor.min() >= 0):
        return False
    for dim in range(tensor.dim()):
        across = 0 if dim else tensor.dim() - 1
        few = tensor if across == dim else tensor.narrow(across, 0, min(_FEWEST_VALUES, tensor.shape[across]))
        if bool(((few.sum(dim, dtype=torch.float32) - 1).abs() < _SHARES_ROUND).all()):
            return True
    return False


def is_symmetric(tensor: torch.Tensor) -> bool:
    """Return whether the tensor is a symmetric or Hermitian matrix, or a stack of them."""
    square = tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2]
    tensor = widened(tensor)
    if square and tensor.is_complex() and torch.equal(tensor, tensor.mH.resolve_conj()):
        return True
    return square and torch.equal(tensor[..., 0], tensor[..., 0, :]) and torch.equal(tensor, tensor.mT)


def has_pattern_of_zeros(tensor: torch.Tensor) -> bool:
    """Return whether the tensor has zeros on purpose, as a mask, padding or an empty diagonal has.

    A large tensor has a few by chance: torch.rand draws about eight among 2^27 elements.
    """
    usual = _CHANCE_ZEROS_8 if is_float8(tensor) else _CHANCE_ZEROS.get(tensor.dtype, _CHANCE_ZEROS_32)
    zeros = widened(tensor) == 0
    count, size = int(zeros.count_nonzero()), tensor.numel()
    if count <= _FEW_ZEROS:
        return count > 0 and size < _SAMPLE
    if count > usual * size:
        return True
    at = zeros.nonzero()
    lines = [at[:, dim] for dim in range(tensor.dim()) if tensor.shape[dim] >= _LONG]
    if tensor.dim() > 1:
        lines.append(at[:, -1] - at[:, -2] + tensor.shape[-2])
    most = max(_FEW_ZEROS, _SHARE_IN_LINE * count)
    return any(int(torch.bincount(line).max()) > most for line in lines)


def _some_slices(tensor: torch.Tensor, dim: int, rng: random.Random) -> torch.Tensor:
    size = tensor.shape[dim]
    chosen = rng.sample(range(size), max(1, size // _SLICES_SHARE))
    return torch.tensor(chosen, device=tensor.device)


def _shifted(tensor: torch.Tensor, rng: random.Random, *, moves: bool) -> torch.Tensor:
    dim = rng.randrange(tensor.dim())
    size = 1 if is_symmetric(tensor) else tensor.shape[dim]
    shape = [size if at == dim else 1 for at in range(tensor.dim())]
    generator = torch.Generator(tensor.device)
    generator.manual_seed(rng.getrandbits(62))
    drawn = torch.rand((2, size), generator=generator, device=tensor.device)
    moves = moves and not tensor.is_complex() and not has_pattern_of_zeros(tensor)
    scale = _LEAST_SCALE + (1 - _LEAST_SCALE) * drawn[0] if moves else 2.0 ** -torch.floor(1 + 2 * drawn[0])
    if size > 1 and rng.random() < 0.5:
        untouched = torch.ones(size, dtype=torch.bool, device=tensor.device)
        untouched[_some_slices(tensor, dim, rng)] = False
        scale[untouched] = 1.0
    scale = scale.reshape(shape)
    wide = tensor.float() if tensor.dtype.itemsize < 4 else tensor
    if not moves:
        return (wide * scale).to(tensor.dtype)
    deviation, mean = torch.std_mean(wide)
    least, most = wide.min(), wide.max()
    towards = (mean + 2 * deviation * (2 * drawn[1].reshape(shape) - 1)).clamp(least, most)
    moved = (scale * wide).add_((1 - scale) * towards)
    return moved.clamp_(least, most).to(tensor.dtype)
