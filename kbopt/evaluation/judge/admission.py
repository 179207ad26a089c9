"""Admission of a task: whether it can be scored at all. If it accepted a trivial answer, one would win.

Each test has a name, and the message of a failure carries it. The tolerance of an admitted task is
KernelBench's, or a narrower one if that accepts a trivial answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from kbopt.evaluation.judge import values
from kbopt.evaluation.judge.kinds import Contract, contract_of
from kbopt.evaluation.judge.precision import Sensitivity
from kbopt.evaluation.judge.probes import SHARES, Probe
from kbopt.evaluation.judge.products import plain
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.sensitivity import find_sensitivity
from kbopt.evaluation.judge.steps import counts_in_steps
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.judge.tolerance import (
    TOLERANCE,
    Mismatch,
    accepts,
    extents,
    find_mismatch,
    is_finite,
    pieces,
)

_NARROWEST = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 1e-2}
"""The narrowest tolerance for each precision. Below it an honest kernel's rounding would be taken for an
error."""
_FURTHER_DRAWS, _MOST_DRAWS = 4, 3
"""Further draws of the task's own inputs on which trivial answers are tried, and those on which they have to
be wrong. One task of KernelBench was admitted in one audit and refused in the next for an unusual draw
(benchmarks/results/2026-11-30-audit-twice.md)."""
_FEWEST_CALLS = 10
"""Calls that each candidate gets at least besides the checks: on other values, and for its time."""
_LENIENCE = 2.0
"""How many times as long as the protocol allows a candidate the reference may take for as many calls. The
first calls of a process take longer than later ones, and another program's load may go away."""
_TOO_ALIKE = {
    "copy of an input": "for the inputs that get_inputs() draws the reference is the identity: a copy of an "
    "input lies within the tolerance {tolerance:g} of its answer. Draw inputs on which it does something",
    "answer to other inputs": "the reference's answer hardly depends on its inputs: the answer to other "
    "inputs lies within the tolerance {tolerance:g}. Change the inputs or the parameters so that outputs "
    "differ from one set of inputs to the next",
}
_ALIKE = (
    "that answer lies within the tolerance {tolerance:g} of the reference's, so the task cannot tell a "
    "kernel from a trivial one. Change the inputs so that the outputs differ from one set of inputs to the "
    "next"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What admission found out about a task on one workload.

    `expected` has the form of the answers: its tensors have no data. Every check uses `tolerance`.
    `aliases_inputs` says that the reference itself returns the memory of an input. `kept` has the numbers of
    outputs that lie in memory of the model, such as a parameter, so that each call returns the same memory.
    `sensitivity` names the inputs on which a lower precision shows, `contract` the values that are allowed.
    """

    expected: Output
    tolerance: float
    aliases_inputs: bool
    kept: frozenset[int] = frozenset()
    sensitivity: Sensitivity = Sensitivity()
    contract: Contract = Contract()


def admit(reference: Reference) -> Admission:
    """Run the tests. Raises TaskError, which names the test that failed.

    The function holds few tensors at a time, because each may take gigabytes.
    """
    draw = reference.draw(secrets.randbits(62))
    kept = tuple(t.clone() for t in draw.tensors)
    output = reference.run(draw.arguments())
    if not any(t.numel() for t in output.tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in output.tensors)
        raise TaskError(
            f"admission test 'zeros' failed: the reference's outputs, of shape {shapes}, hold no elements; "
            "a size of its inputs is zero: make it larger"
        )
    expected, aliases = _form_of(output), bool(_lying_in(draw.tensors, output.tensors))
    kept_outputs = _lying_in(reference.held_tensors(), output.tensors)
    changed = [
        n for n, (now, then) in enumerate(zip(draw.tensors, kept, strict=True)) if not same_bits(now, then)
    ]
    reference.written = tuple(changed)
    output = replace(output, tensors=(*output.tensors, *(draw.tensors[number] for number in changed)))
    draw = replace(draw, tensors=kept)
    first, started = _snapshot(output), time.monotonic()
    output = _require_deterministic(reference, draw, first)
    _require_quick(reference, (time.monotonic() - started) / (1 if output is first else _CALLS_ANEW))
    del first
    exact = reference.run_exact(draw)
    if exact.skeleton != output.skeleton:
        raise TaskError("admission test 'deterministic' failed: the reference changes its output's structure")
    if any(map(_is_other_form, exact.tensors, output.tensors)):
        # It looks at the bits of its floats, of which float64 has others.
        reference.has_exact = False
        exact = output
    tolerance = TOLERANCE[reference.precision]
    while failed := _accepted_trivial(reference, draw, output, exact, tolerance):
        if tolerance / 10 < _NARROWEST[reference.precision]:
            if _tells_elsewhere(reference, draw, tolerance):
                break
            reason = _TOO_ALIKE.get(failed, _ALIKE).format(tolerance=tolerance)
            raise TaskError(f"admission test '{failed}' failed: {reason}")
        tolerance /= 10
    in_steps = any(map(counts_in_steps, output.tensors))
    del draw, kept, output, exact
    return Admission(
        expected=expected,
        tolerance=tolerance,
        aliases_inputs=aliases,
        kept=kept_outputs,
        sensitivity=find_sensitivity(reference, secrets.randbits(62)),
        contract=contract_of(reference, reference.draw(secrets.randbits(62)), counts_in_steps=in_steps),
    )


def _require_quick(reference: Reference, call_s: float) -> None:
    """Raise TaskError if a candidate that takes `call_s` seconds a call, as the reference does, runs out of
    time. Otherwise the task would hold the device for minutes, and no candidate could be measured.
    """
    protocol = reference.protocol
    calls = protocol.trials + _FEWEST_CALLS
    if call_s * calls > _LENIENCE * protocol.timeout_s:
        raise TaskError(
            f"admission test 'quick enough' failed: one call of the reference takes {call_s:.3g} s, and a "
            f"candidate gets at least {calls} calls within --timeout {protocol.timeout_s:g} s. Make the "
            f"inputs smaller, or give --timeout {call_s * calls:.0f} or more"
        )


def _require_deterministic(reference: Reference, draw: Draw, output: Output) -> Output:
    """Return the answer to `draw` if the same inputs give it again. Raises TaskError otherwise.

    If the model keeps state from one call to the next, each call gets a fresh copy of it from now on.
    """
    if _differs(reference, draw, output) is None:
        return output
    reference.start_anew_for_each_call()
    first = _snapshot(plain(reference, draw))
    repeated = _differs(reference, draw, first)
    if repeated is None:
        return first
    reference.model.eval()
    in_eval = _snapshot(plain(reference, draw))
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


_CALLS_ANEW = 4
"""Calls of the reference in `_require_deterministic`, at most, if the model keeps state."""


def _differs(reference: Reference, draw: Draw, output: Output) -> Mismatch | None:
    """Return how a repeated answer differs from `output` beyond the tolerance, or None.

    A repetition may differ by rounding: atomics on a GPU add in another order each time.
    """
    again, tolerance = plain(reference, draw), TOLERANCE[reference.precision]
    return find_mismatch(again.tensors, output.tensors, output.tensors, tolerance, name_of=reference.name_of)


def _accepted_trivial(
    reference: Reference, draw: Draw, output: Output, exact: Output, tolerance: float
) -> str | None:
    """Return the name of the first trivial answer within the tolerance, or None.

    The answers are made one at a time, because each may take gigabytes.
    """
    answers: dict[str, Callable[[], list[torch.Tensor]]] = {
        "zeros": lambda: [torch.zeros_like(t) for t in output.tensors],
        "constant": lambda: [_constant(t) for t in output.tensors],
        "uninitialised memory": lambda: [_garbage(t) for t in output.tensors],
        "copy of an input": lambda: [_nearest_input(t, draw) for t in output.tensors],
        "answer to other inputs": lambda: _elsewhere(reference, output),
    }
    known = extents(output.tensors, exact.tensors)
    for name, answer in answers.items():
        if accepts(answer(), exact.tensors, output.tensors, tolerance, known):
            return name
    return None


def _tells_elsewhere(reference: Reference, draw: Draw, tolerance: float) -> bool:
    """Return whether trivial answers are wrong on some other inputs that every candidate meets as well, or on
    most of some further draws.

    For example, a matrix product of many positive numbers in bf16 is nearly a constant. It is none if its
    sums have few terms. In a network that is nearly chaotic the reference's own error decides what is
    accepted, and that error is far larger on some draws than on others.
    """
    shifted = values.shifted(draw, secrets.SystemRandom(), moves=True)
    sparse = (Probe(name="", share=share).inputs(draw) for share in SHARES)
    if any(_tells(reference, probe, tolerance) for probe in chain([shifted], sparse)):
        return True
    told = 0
    for number in range(_FURTHER_DRAWS):
        told += _tells(reference, reference.draw(secrets.randbits(62)), tolerance)
        if told + _FURTHER_DRAWS - number - 1 < _MOST_DRAWS:
            return False
    return True


def _tells(reference: Reference, draw: Draw, tolerance: float) -> bool:
    """Return whether the reference is finite on these inputs, and all trivial answers are wrong."""
    try:
        exact, output = reference.run_exact(draw), plain(reference, draw)
    except TaskError:
        return False
    return (
        all(map(is_finite, output.tensors))
        and _accepted_trivial(reference, draw, output, exact, tolerance) is None
    )


def _elsewhere(reference: Reference, output: Output) -> list[torch.Tensor]:
    """Return the answer to other inputs. Raises TaskError if it has another form."""
    other = reference.run(reference.draw(secrets.randbits(62)).arguments())
    require_same_form(other, output)
    return list(other.tensors)


def require_same_form(answer: Output, expected: Output) -> None:
    """Require that the values of the inputs decide no shape and no number of an answer. `expected` may lack
    the inputs that the reference writes to. Raises TaskError.
    """
    shapes = [tuple(tensor.shape) for tensor in answer.tensors[: len(expected.tensors)]]
    if answer.skeleton != expected.skeleton or shapes != [tuple(t.shape) for t in expected.tensors]:
        raise TaskError(
            "admission test 'same form' failed: the values of its inputs decide the shape of what the "
            "reference returns, or a number in it; return tensors of fixed shapes, and numbers as tensors"
        )


def _constant(output: torch.Tensor) -> torch.Tensor:
    """Return a tensor that holds the mean of `output` everywhere.

    For a scalar, and for types without a mean, the constant is zero, which has its own test too.
    """
    if not (output.is_floating_point() or output.is_complex()) or output.numel() < 2:
        return torch.zeros_like(output)
    values = output.float() if output.dtype.itemsize == 1 else output  # torch has few operations on float8.
    total, count = output.new_zeros((), dtype=torch.complex128 if output.is_complex() else torch.float64), 0
    for _, (piece,) in pieces(values):
        finite = torch.isfinite(piece)
        total += torch.where(finite, piece, 0).sum(dtype=total.dtype)
        count += int(finite.sum())
    return (total / max(1, count)).to(output.dtype).expand(output.shape).clone()


def _garbage(output: torch.Tensor) -> torch.Tensor:
    return torch.full_like(output, 1e-3 if output.is_floating_point() or output.is_complex() else 1)


def _nearest_input(output: torch.Tensor, draw: Draw) -> torch.Tensor:
    for tensor in draw.tensors:
        if tensor.shape == output.shape and tensor.dtype == output.dtype:
            return tensor
    return torch.zeros_like(output)


def _form_of(output: Output) -> Output:
    tensors = tuple(
        torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta") for t in output.tensors
    )
    return Output(skeleton=output.skeleton, tensors=tensors)


def _snapshot(output: Output) -> Output:
    return Output(skeleton=output.skeleton, tensors=tuple(t.clone() for t in output.tensors))


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether two tensors of one dtype are equal byte by byte. A NaN is then equal to itself."""
    one, other = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right))
    if all(t.numel() % 8 == 0 and t.storage_offset() % 8 == 0 for t in (one, other)):
        one, other = one.view(torch.int64), other.view(torch.int64)  # Compared six times as fast.
    return torch.equal(one, other)


def _lying_in(held: Iterable[torch.Tensor], outputs: Sequence[torch.Tensor]) -> frozenset[int]:
    """Return the numbers of the outputs that lie in the memory of the `held` tensors."""
    storages = {t.untyped_storage().data_ptr() for t in held if t.numel()}
    return frozenset(n for n, t in enumerate(outputs) if t.untyped_storage().data_ptr() in storages)


def _is_other_form(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or counts_in_steps(one) != counts_in_steps(other)
