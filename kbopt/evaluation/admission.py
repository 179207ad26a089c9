"""May this task be scored at all? A task that accepts a trivial answer would be won by one.

Each test has a name, which the message of a failure carries. `admit` returns the tolerance to use:
KernelBench's, or a narrower one where that accepts a trivial answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kbopt.evaluation.compare import TOLERANCE, find_mismatch
from kbopt.evaluation.reference import Draw, Output, Reference, TaskError

_NARROWEST = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 1e-2}
"""Below this an honest kernel's rounding would be taken for an error."""

Trivial = Callable[[Draw, torch.Tensor, torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """`tolerance` for every check. `aliases_inputs` where the reference itself returns a view of one."""

    tolerance: float
    aliases_inputs: bool
    mutates_inputs: bool


def admit(reference: Reference) -> Admission:
    """Raises TaskError naming the test that failed."""
    draw, other = (reference.draw(secrets.randbits(62)) for _ in range(2))
    kept = tuple(t.clone() for t in draw.tensors)
    output = reference.run(draw.arguments())
    mutates = not _same(kept, draw.tensors)
    aliases = _aliases(draw.tensors, output.tensors)
    draw = Draw(skeleton=draw.skeleton, tensors=kept)
    output = _snapshot(output)
    exact = reference.run_exact(draw)
    if exact.skeleton != output.skeleton:
        raise TaskError("admission test 'deterministic' failed: the reference changes its output's structure")
    again = reference.run(draw.arguments(tuple(t.clone() for t in kept)))
    # What a repetition may differ by is rounding in another order, as atomics on a GPU cause it.
    tolerance = TOLERANCE[reference.precision]
    repeated = find_mismatch(again.tensors, output.tensors, output.tensors, tolerance)
    if repeated is not None:
        raise TaskError(
            "admission test 'deterministic' failed: the same inputs gave the reference another answer, "
            f"{repeated}; a task must not draw random numbers in forward"
        )
    elsewhere = _snapshot(reference.run(other.arguments()))
    while failed := _accepted_trivial(draw, output, exact, elsewhere, tolerance):
        if tolerance / 10 < _NARROWEST[reference.precision]:
            raise TaskError(
                f"admission test '{failed}' failed: that answer lies within the tolerance {tolerance:g} of "
                "the reference, so the task cannot tell a kernel from a trivial one. Change the inputs so "
                "that the outputs differ from one set of inputs to the next"
            )
        tolerance /= 10
    return Admission(tolerance=tolerance, aliases_inputs=aliases, mutates_inputs=mutates)


def _accepted_trivial(
    draw: Draw, output: Output, exact: Output, elsewhere: Output, tolerance: float
) -> str | None:
    answers: dict[str, list[torch.Tensor]] = {
        "zeros": [torch.zeros_like(t) for t in output.tensors],
        "constant": [_constant(t) for t in output.tensors],
        "uninitialised memory": [_garbage(t) for t in output.tensors],
        "copy of an input": [_nearest_input(t, draw) for t in output.tensors],
    }
    if tuple(t.shape for t in elsewhere.tensors) == tuple(t.shape for t in output.tensors):
        answers["answer to other inputs"] = list(elsewhere.tensors)
    for name, tensors in answers.items():
        if find_mismatch(tensors, exact.tensors, output.tensors, tolerance) is None:
            return name
    return None


def _constant(output: torch.Tensor) -> torch.Tensor:
    """Its mean everywhere; a scalar has no other constant than zero, which has its own test."""
    if not output.is_floating_point() or output.numel() < 2:
        return torch.zeros_like(output)
    finite = output[torch.isfinite(output)].double()
    return torch.full_like(output, float(finite.mean()) if finite.numel() else 0.0)


def _garbage(output: torch.Tensor) -> torch.Tensor:
    return torch.full_like(output, 1e-3 if output.is_floating_point() else 1)


def _nearest_input(output: torch.Tensor, draw: Draw) -> torch.Tensor:
    for tensor in draw.tensors:
        if tensor.shape == output.shape and tensor.dtype == output.dtype:
            return tensor
    return torch.zeros_like(output)


def _snapshot(output: Output) -> Output:
    return Output(skeleton=output.skeleton, tensors=tuple(t.clone() for t in output.tensors))


def _same(left: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...]) -> bool:
    return all(same_bits(a, b) for a, b in zip(left, right, strict=True))


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equality that takes a NaN to be equal to itself."""
    if left.is_floating_point():
        return bool(((left == right) | (left.isnan() & right.isnan())).all())
    return torch.equal(left, right)


def _aliases(inputs: tuple[torch.Tensor, ...], outputs: tuple[torch.Tensor, ...]) -> bool:
    storages = {t.untyped_storage().data_ptr() for t in inputs if t.numel()}
    return any(t.untyped_storage().data_ptr() in storages for t in outputs if t.numel())
