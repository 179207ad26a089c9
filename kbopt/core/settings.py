"""What a search is told to do. Every default of the search stands here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kbopt.core.kernel_strategies import KernelStrategy

Algorithm = Literal["PS", "PS_Summarizer", "PS_epsNet", "PS_epsNet_Summarizer", "best_of_n", "random"]
Guest = Literal["session", "gepa", "openevolve"]
"""Who searches in place of kbopt, which judges and journals: an agent's session, another's optimizer."""

Searcher = Literal[Algorithm, Guest]
ScoreFunction = Literal["mean", "ucb", "lcb"]
Ties = Literal["newest", "oldest"]

DEFAULT_EPSILON = 0.02
"""L2 distance between unit embeddings; 0.02 is a cosine of 0.9998. See docs/decisions/0011 on the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one search; None is no limit. Overshoot is at most the work in flight.

    `evaluations` counts every measurement that used the device, repeats included and cache hits not; `usd`
    counts language models and the rent of containers. Where it `grows`, `evaluations` and `usd` are a first
    part, and the sweep grants more or ends the search.
    """

    evaluations: int | None = None
    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None
    grows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """One search: an algorithm or whoever stands for it, with its parameters, a seed and a budget.

    `num_steps` counts steps of the original PrioritySearch, so the number of proposals is
    `num_steps * num_candidates * num_proposals`, whatever the mode. `epsilon` is the L2 distance under
    which a proposal counts as known. `memory_size` bounds the ranked memory to the exact top k.
    `remeasure_share` is the largest share of the evaluations spent on measuring contenders for the best
    again. `target_speedup` ends the search early once the best kernel, measured at least twice, has an
    interval that lies above it; `target_roofline` does so for the share of the task's floor by bytes.
    `synchronous` reproduces the original step by step, with its barriers and re-evaluations. `ties`
    says which of two candidates of equal priority goes first. `refinement` lets a bandit ask for
    variations of a parent's `# tune:` comments instead of new proposals, by what paid off. Each brief for a
    first kernel asks for another one of `strategies`, except step by step, where the original has one.
    `max_in_flight` bounds the briefs without an answer and candidates without a result, except step by step,
    where the barriers do.
    """

    algorithm: Searcher = "PS"
    score_function: ScoreFunction = "mean"
    num_steps: int = 5
    num_candidates: int = 5
    num_proposals: int = 1
    num_exemplars: int = 2
    epsilon: float = DEFAULT_EPSILON
    exploration: float = 1.0
    memory_size: int = 1000
    remeasure_share: float = 0.1
    target_speedup: float | None = None
    target_roofline: float | None = None
    synchronous: bool = False
    max_in_flight: int = 256
    ties: Ties = "newest"
    refinement: bool = False
    strategies: tuple[KernelStrategy, ...] = ()
    seed: int = 0
    budget: Budget = Budget()

    @property
    def chooses_parents(self) -> bool:
        """Whether briefs ever ask for a better kernel than one that is known. A guest chooses by itself."""
        return self.algorithm != "best_of_n" and self.algorithm not in get_args(Guest)

    @property
    def uses_epsilon_net(self) -> bool:
        return "epsNet" in self.algorithm

    @property
    def uses_summarizer(self) -> bool:
        return "Summarizer" in self.algorithm

    @property
    def num_total_proposals(self) -> int:
        return self.num_steps * self.num_candidates * self.num_proposals
