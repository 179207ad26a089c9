"""Who answers which brief when models and tunables share a search."""

from __future__ import annotations

from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.proposers.mixed import MixedProposer
from tests.support.llm_briefs import CHANGED, brief, trial


class Recorder:
    """A proposer that answers everything with its own name, or nothing at all."""

    def __init__(self, name: str, *, answers: bool = True) -> None:
        self.name = name
        self.answers = answers

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        if not self.answers:
            return NoProposal(reason=f"{self.name} has nothing")
        return Candidate(id=brief.id, source=CHANGED, parent=None, proposer=self.name, memory_version=0)


async def answerer(mixed: MixedProposer, asked: Brief) -> str:
    answer = await mixed.propose(asked)
    return answer.proposer if isinstance(answer, Candidate) else answer.reason


async def test_refinement_goes_to_the_tunables_and_new_ideas_to_the_model() -> None:
    mixed = MixedProposer(Recorder("llm"), Recorder("tunables"))
    assert await answerer(mixed, brief(parent=trial(), action="refine")) == "tunables"
    assert await answerer(mixed, brief(parent=trial())) == "llm"


async def test_refinement_never_costs_tokens_even_where_nothing_can_be_tuned() -> None:
    mixed = MixedProposer(Recorder("llm"), Recorder("tunables", answers=False))
    assert await answerer(mixed, brief(parent=trial(), action="refine")) == "tunables has nothing"


async def test_first_kernels_are_shared_between_seeds_and_model_by_the_briefs_seed() -> None:
    mixed = MixedProposer(Recorder("llm"), Recorder("tunables"))
    first = [await answerer(mixed, brief(seed=seed)) for seed in range(40)]
    assert first == [await answerer(mixed, brief(seed=seed)) for seed in range(40)]
    assert 10 < first.count("llm") < 30


async def test_the_model_writes_every_first_kernel_of_a_task_without_seeds() -> None:
    mixed = MixedProposer(Recorder("llm"), Recorder("tunables", answers=False))
    assert {await answerer(mixed, brief(seed=seed)) for seed in range(40)} == {"llm"}
