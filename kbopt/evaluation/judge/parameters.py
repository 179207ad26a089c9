"""Decides which parameters a candidate is judged with: the reference's, or those of its own constructor."""

from __future__ import annotations

import math

import torch

from kbopt.evaluation.judge import errors
from kbopt.evaluation.judge.answers import Refused
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.checks import Checks
from kbopt.evaluation.judge.reference import Reference

OWN_PARAMETERS = (
    "Its constructor changes parameters that have the reference's names. With the reference's values copied "
    "in it is wrong, so that it was judged with its own, drawn under the same seed: a checkpoint of the "
    "reference does not fit it."
)


_MUCH_NEARER = 0.1
"""Share of the error with the reference's parameters. A candidate whose error is below it with its own is
judged with these, also if it is refused then: so lower precision is called that, and not a wrong answer."""


def keeps_own(calls: Calls, checks: Checks, reference: Reference) -> bool:
    """Return whether the candidate has to keep its own parameters. If so, it is constructed again with them.

    The constructor of an honest candidate may fold a scale into the weights that it drew under the seed, or
    transpose them, and keep their names. The reference's values undo that. So where they overwrote others
    and the answer is wrong, the candidate's own are tried. KernelBench never copies any (decision 112).
    """
    worker = calls.worker
    if not worker.overwrites:
        return False
    with_copied = _error(calls, checks)
    if with_copied == 0:
        return False
    worker.construct({})
    with_own = _error(calls, checks)
    if with_own == 0 or with_own < _MUCH_NEARER * with_copied:
        return True
    worker.construct(reference.parameters())
    return False


def _error(calls: Calls, checks: Checks) -> float:
    """Return the relative error of one answer: 0 if that is right, and infinite if its form is wrong."""
    draw = calls.draw()
    own = calls.own_answer(draw)
    outputs: list[list[torch.Tensor]] = []
    try:
        _, outputs = calls.call("run", [draw], [0])
        checks.require_close(outputs[0], own, draw)
    except Refused:
        if not outputs:
            return math.inf
        # Outputs that count in steps, such as indices, have no relative error.
        return errors.measure_error(outputs[0], calls.exact_answer(draw).tensors).rms or math.inf
    return 0.0
