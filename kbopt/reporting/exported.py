"""A kernel as a file for others: where it comes from, and what it says of gradients."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from kbopt import __version__
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.proposals import Trial
from kbopt.core.scoring import standing
from kbopt.core.text import first_line
from kbopt.reporting.run import Run
from kbopt.reporting.text import figure, printable, ranked_over

_GUARD = '''

def _forward_only(forward):
    """Refuse where gradients are asked for: kernels of this file record none, and would cut them silently."""
    import functools

    import torch

    def required(value):
        if isinstance(value, torch.Tensor):
            return value.requires_grad
        if isinstance(value, dict):
            return any(map(required, value.values()))
        return isinstance(value, (list, tuple)) and any(map(required, value))

    @functools.wraps(forward)
    def checked(self, *inputs, **named):
        if torch.is_grad_enabled() and required([*inputs, *named.values(), *self.parameters()]):
            raise RuntimeError(
                "this kernel, found by kbopt, computes the forward pass only, and an input or a parameter "
                "requires grad. Call it under torch.no_grad(), or after .requires_grad_(False)."
            )
        return forward(self, *inputs, **named)

    return checked


ModelNew.forward = _forward_only(ModelNew.forward)
'''


def exported(run: Run, trial: Trial, *, folder: str, inputs: str, backward: bool) -> str:
    """The candidate's source with its provenance before it and, for a kernel of its own, a guard after it.

    `inputs` describes what the task's `get_inputs()` returns; empty where that is not known. `trial` may have
    no results. Nothing cuts gradients where the run judges `backward` too, nor do PyTorch's own operators:
    a candidate that was seen to call nothing else has no guard.
    """
    found = standing(trial)
    lines = [f"ModelNew for the task {run.task.name}, found by kbopt {__version__}.", ""]
    lines.append(f"run        {folder}, candidate {trial.candidate.id}, by {trial.candidate.proposer}")
    if inputs:
        lines.append(f"inputs     {inputs}")
    lines += _figures(trial)
    guarded = not backward and (found is None or found.custom_kernel)
    if backward and found is not None:
        lines.append("forward and backward: it was judged on its gradients too")
    if guarded:
        lines.append("forward only: it raises where an input or a parameter requires grad")
    header = "".join(f"# {first_line(printable(line), 200)}".rstrip() + "\n" for line in lines)
    source = trial.candidate.source.removeprefix("\ufeff")
    return f"{header}\n{source.rstrip()}\n{_GUARD if guarded else ''}"


def _figures(trial: Trial) -> list[str]:
    found = standing(trial)
    if not trial.results:
        return ["speedup    not measured"]
    last = trial.results[-1]
    where = f"device     {last.device}; protocol {last.protocol}; torch {_torch()} where it was exported"
    if found is None or not isinstance(last.outcome, Measured):
        return [f"speedup    none: {outcome_name(last.outcome)}", where]
    low, high = found.speedup_ci
    claimed = "" if found.state == "faster" else f"; {found.state}"
    speedup = (
        f"{figure(found.speedup)}x over {ranked_over(last)}, 95 % interval {figure(low)} to {figure(high)}"
    )
    times = f"{found.kernel_ms:.4g} ms instead of {found.reference_ms:.4g} ms"
    return [f"speedup    {speedup}; {times}{claimed}", where]


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "(none)"
