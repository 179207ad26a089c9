"""Briefs, trials and answers for the tests of proposers that ask models."""

from __future__ import annotations

from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import Audit, CompileFailed, Measured, Outcome
from kbopt.core.proposals import Brief, Candidate, Trial
from kbopt.core.task import Task

TASK = Task(
    name="quick/relu",
    source="""import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x.relu()
""",
    family="elementwise",
)

PARENT = """import torch

BLOCK = 64  # tune: 32, 64


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x.clamp(min=0)
"""

CHANGED = PARENT.replace("x.clamp(min=0)", "torch.relu(x)")


def rewrite(source: str = CHANGED, note: str = "Calls the fused operation.") -> str:
    """An answer with the complete file."""
    return f"{note}\n\n```python\n{source}```\n"


def edit(search: str, replace: str) -> str:
    """An answer with one edit."""
    return f"Changes a line.\n\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


def measured(speedup: float) -> Measured:
    return Measured(
        kernel_ms=(1.0,),
        reference_ms=(speedup,),
        speedup=speedup,
        speedup_ci=(speedup * 0.9, speedup * 1.1),
        native_ms=1.0,
        wall_ms=1.0,
        audit=Audit(custom_kernel=True),
    )


def trial(
    source: str = PARENT,
    *,
    id: str = "parent",
    outcome: Outcome | None = None,
    feedback: str = "Slow loads.",
    note: str = "Written by hand.",
) -> Trial:
    result = Result(
        outcome=outcome or measured(1.5),
        feedback=feedback,
        device="cpu",
        protocol="strict-1",
        boot="b1",
        seconds=Seconds(),
        device_s=0.1,
    )
    candidate = Candidate(id=id, source=source, parent=None, proposer="test", memory_version=0, note=note)
    return Trial(candidate=candidate, results=(result,))


def failed_trial(id: str, reason: str = "no ;") -> Trial:
    return trial(id=id, outcome=CompileFailed(reason=reason), feedback=reason)


def brief(
    id: str = "b7",
    *,
    parent: Trial | None = None,
    exemplars: tuple[Trial, ...] = (),
    summary: str = "",
    seed: int = 1,
    action: str = "propose",
    others: tuple[str, ...] = (),
) -> Brief:
    return Brief(
        id=id,
        task=TASK,
        parent=parent,
        exemplars=exemplars,
        summary=summary,
        seed=seed,
        memory_version=4,
        action="refine" if action == "refine" else "propose",
        others=others,
    )
