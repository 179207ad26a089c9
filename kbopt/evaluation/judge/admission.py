"""May this task be scored at all? A task that accepts a trivial answer would be won by one.

Each test has a name, which the message of a failure carries. `admit` returns the tolerance to use:
KernelBench's, or a narrower one where that accepts a trivial answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from kbopt.evaluation.judge import values
from kbopt.evaluation.judge.kinds import Contract, contract_of
from kbopt.evaluation.judge.precision import SHARES, Probe, Sensitivity, find_sensitivity
from kbopt.evaluation.judge.reference import Draw, Output, Reference, TaskError
from kbopt.evaluation.judge.tolerance import (
    TOLERANCE,
    Mismatch,
    counts_in_steps,
    find_mismatch,
    is_finite,
)

_NARROWEST = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 1e-2}
"""Below this an honest kernel's rounding would be taken for an error."""
_TOO_ALIKE = {
    "copy of an input": "for the inputs that get_inputs() draws the reference is the identity: a "
    "copy of an input lies within the "
    "tolerance {tolerance:g} of its answer. Draw inputs on which it does something",
    "answer to other inputs": "the reference's answer hardly depends on its inputs: the answer to "
    "other inputs lies within the "
    "tolerance {tolerance:g}. Change the inputs or the parameters so that outputs differ from one "
    "set of inputs to the next",
}
_ALIKE = (
    "that answer lies within the tolerance {tolerance:g} of the reference's, so the task cannot tell "
    "a kernel from a "
    "trivial one. Change the inputs so that the outputs differ from one set of inputs to the next"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """`tolerance` for every check. `aliases_inputs` where the reference itself returns a view of one.
    `sensitivity` says on which inputs a lower precision shows, `contract` which values the task takes.
    """

    tolerance: float
    aliases_inputs: bool
    mutates_inputs: bool
    sensitivity: Sensitivity = Sensitivity()
    contract: Contract = Contract()


def admit(reference: Reference) -> Admission:
    """Raises TaskError naming the test that failed. Holds few tensors at a time, which may be gigabytes."""
    draw = reference.draw(secrets.randbits(62))
    kept = tuple(t.clone() for t in draw.tensors)
    output = reference.run(draw.arguments())
    mutates = not _same(kept, draw.tensors)
    aliases = _aliases(draw.tensors, output.tensors)
    draw = replace(draw, tensors=kept)
    output = _require_deterministic(reference, draw, _snapshot(output))
    exact = reference.run_exact(draw)
    if exact.skeleton != output.skeleton:
        raise TaskError("admission test 'deterministic' failed: the reference changes its output's structure")
    tolerance = TOLERANCE[reference.precision]
    while failed := _accepted_trivial(reference, draw, output, exact, tolerance):
        if tolerance / 10 < _NARROWEST[reference.precision]:
            if _tells_on_probes(reference, draw, tolerance):
                break
            reason = _TOO_ALIKE.get(failed, _ALIKE).format(tolerance=tolerance)
            raise TaskError(f"admission test '{failed}' failed: {reason}")
        tolerance /= 10
    in_steps = any(map(counts_in_steps, output.tensors))
    del draw, kept, output, exact
    return Admission(
        tolerance=tolerance,
        aliases_inputs=aliases,
        mutates_inputs=mutates,
        sensitivity=find_sensitivity(reference, secrets.randbits(62)),
        contract=contract_of(reference, reference.draw(secrets.randbits(62)), counts_in_steps=in_steps),
    )


def _require_deterministic(reference: Reference, draw: Draw, output: Output) -> Output:
    """The answer to `draw`, which the same inputs give again: on a fresh copy of the model for each call
    where the model keeps state from one call to the next. Raises TaskError.
    """
    if _differs(reference, draw, output) is None:
        return output
    reference.start_anew_for_each_call()
    first = _snapshot(_again(reference, draw))
    repeated = _differs(reference, draw, first)
    if repeated is None:
        return first
    reference.model.eval()
    in_eval = _snapshot(_again(reference, draw))
    only_in_training = _differs(reference, draw, in_eval) is None
    reference.model.train()
    remedy = (
        "it draws random numbers only while training (dropout and its like); --eval-mode judges it "
        "as inference runs it"
        if only_in_training
        else "a task must not draw random numbers in forward"
    )
    raise TaskError(
        "admission test 'deterministic' failed: the same inputs gave the reference another answer, "
        f"{repeated}; {remedy}"
    )


def _again(reference: Reference, draw: Draw) -> Output:
    return reference.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))


def _differs(reference: Reference, draw: Draw, output: Output) -> Mismatch | None:
    """What a repetition may differ by is rounding in another order, as atomics on a GPU cause it."""
    again, tolerance = _again(reference, draw), TOLERANCE[reference.precision]
    return find_mismatch(again.tensors, output.tensors, output.tensors, tolerance, name_of=reference.name_of)


def _accepted_trivial(
    reference: Reference, draw: Draw, output: Output, exact: Output, tolerance: float
) -> str | None:
    """The name of the first trivial answer within the tolerance; one of them exists at a time."""
    answers: dict[str, Callable[[], list[torch.Tensor] | None]] = {
        "zeros": lambda: [torch.zeros_like(t) for t in output.tensors],
        "constant": lambda: [_constant(t) for t in output.tensors],
        "uninitialised memory": lambda: [_garbage(t) for t in output.tensors],
        "copy of an input": lambda: [_nearest_input(t, draw) for t in output.tensors],
        "answer to other inputs": lambda: _elsewhere(reference, output),
    }
    for name, answer in answers.items():
        tensors = answer()
        if tensors is not None and find_mismatch(tensors, exact.tensors, output.tensors, tolerance) is None:
            return name
    return None


def _tells_on_probes(reference: Reference, draw: Draw, tolerance: float) -> bool:
    """Whether trivial answers are wrong on inputs of another kind, which every candidate meets as well.

    A product of many positive numbers in bf16 is nearly a constant; with few terms in its sums it is not.
    """
    rng = secrets.SystemRandom()
    probes = [values.shifted(draw, rng, moves=True), *(Probe(name="", share=s).inputs(draw) for s in SHARES)]
    for probe in probes:
        try:
            exact, output = reference.run_exact(probe), _again(reference, probe)
        except TaskError:
            continue
        if not all(map(is_finite, output.tensors)):
            continue
        if _accepted_trivial(reference, probe, output, exact, tolerance) is None:
            return True
    return False


def _elsewhere(reference: Reference, output: Output) -> list[torch.Tensor] | None:
    """The answer to other inputs, where it has the same form."""
    other = reference.run(reference.draw(secrets.randbits(62)).arguments())
    same = tuple(t.shape for t in other.tensors) == tuple(t.shape for t in output.tensors)
    return list(other.tensors) if same else None


def _constant(output: torch.Tensor) -> torch.Tensor:
    """Its mean everywhere; a scalar has no other constant than zero, which has its own test."""
    if not (output.is_floating_point() or output.is_complex()) or output.numel() < 2:
        return torch.zeros_like(output)
    values = output.float() if output.dtype.itemsize == 1 else output  # Of float8, few operations are there.
    finite = torch.isfinite(values)
    count = int(finite.sum())
    wide = torch.complex128 if output.is_complex() else torch.float64
    total = torch.where(finite, values, 0).sum(dtype=wide)
    return (total / max(1, count)).to(output.dtype).expand(output.shape).clone()


def _garbage(output: torch.Tensor) -> torch.Tensor:
    return torch.full_like(output, 1e-3 if output.is_floating_point() or output.is_complex() else 1)


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
    """Equality byte by byte, of whatever dtype, so that a NaN is equal to itself."""
    one, other = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right))
    return torch.equal(one, other)


def _aliases(inputs: tuple[torch.Tensor, ...], outputs: tuple[torch.Tensor, ...]) -> bool:
    storages = {t.untyped_storage().data_ptr() for t in inputs if t.numel()}
    return any(t.untyped_storage().data_ptr() in storages for t in outputs if t.numel())
