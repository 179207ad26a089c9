"""A brief, and what becomes of it: a candidate with its measurements, or no proposal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kbopt.core.costs import Usage
from kbopt.core.evaluations import Result
from kbopt.core.kernel_strategies import KernelStrategy
from kbopt.core.outcomes import Measured
from kbopt.core.task import Task

MAX_NOTE_CHARS = 320
"""Characters of a note: what was changed, and a sentence on why that should be faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One proposed source. `id` is the id of the brief that it answers.

    `memory_version` counts the results the search had seen when the brief was written; the difference to
    the count at `tell` is the candidate's staleness. `proposer` names who wrote it (`tunables`,
    `llm:openai/gpt-5`), `note` what was changed, in one line.
    """

    id: str
    source: str
    parent: str | None
    proposer: str
    memory_version: int
    note: str = ""
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate with its measurements, oldest first. Never empty once the search has been told.

    The last `num_finals` of them were made after the search's end. Choosing the best of many by a measurement
    makes that measurement too good, so those alone say how fast it is, where there are any. `full` is the
    winner's evaluation with every baseline and KernelBench's verdict, by which it is not scored. A candidate
    that fails it wins only if no other one works. Where it could not be made, `why_no_full` says why.
    """

    candidate: Candidate
    results: tuple[Result, ...]
    num_finals: int = 0
    full: Result | None = None
    why_no_full: str = ""

    @property
    def judged(self) -> tuple[Result, ...]:
        """The measurements by which it is scored."""
        return self.results[-self.num_finals :] if self.num_finals else self.results

    @property
    def without_finals(self) -> Trial:
        """As it was before the search's end."""
        results = self.results[: len(self.results) - self.num_finals]
        return replace(self, results=results, num_finals=0, full=None, why_no_full="")

    @property
    def is_refuted(self) -> bool:
        """Whether its evaluation in full failed, such as on a workload that the search had not judged."""
        return self.full is not None and not isinstance(self.full.outcome, Measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """All that a proposer may know: the only edge from the search back to the proposers.

    `parent` is None where the task's first kernel is asked for. `exemplars` are other good kernels, best
    first. `seed` is the only source of randomness a proposer may use. `action` is `refine` where the
    parent's `# tune:` comments should be varied at no cost in tokens. `evidence` is what a profile says of
    the parent, of the reference where there is none; empty where nothing is known. `strategy` is the way in
    which a first kernel is to be built; None leaves that open. `others` are the earlier proposals from the
    same parent that have no result yet, oldest first: the note of each, empty until it is answered.
    """

    id: str
    task: Task
    parent: Trial | None
    exemplars: tuple[Trial, ...]
    summary: str
    seed: int
    memory_version: int
    action: Literal["propose", "refine"] = "propose"
    evidence: str = ""
    strategy: KernelStrategy | None = None
    others: tuple[str, ...] = ()


Blame = Literal["brief", "answer", "service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoProposal:
    """A proposer that had nothing to offer for a brief: data, not an exception.

    `blame` says what was to blame: the `brief`, to which there is no answer, the model's `answer`, or the
    `service`.
    """

    reason: str
    usage: tuple[Usage, ...] = ()
    blame: Blame = "brief"
