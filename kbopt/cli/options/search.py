"""The options of a search: its algorithm, its budget, and what it starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kbopt.cli.grouped import BUDGET, EXPERT, F, option, options
from kbopt.cli.values import Kernels, Name, Number
from kbopt.core.protocol import Verdict
from kbopt.core.settings import Algorithm, ScoreFunction, SearchSettings

SETTINGS = SearchSettings()

start_option = option(
    "--start",
    type=Kernels(),
    default=(),
    show_default=False,
    help="Kernels of yours to start from, tuned by their `# tune:` comments or improved by a model. "
    "Default: the seed kernels that ship with kbopt for the task.",
)

each_search_options = (
    option(
        "--num-steps",
        group=BUDGET,
        type=click.IntRange(1),
        help="Rounds of --num-candidates x --num-proposals proposals each. "
        f"Default {SETTINGS.num_steps}, or as many as --max-evals can use.",
    ),
    option(
        "--target-speedup",
        group=BUDGET,
        type=Number(0),
        help="Stop once a kernel measured twice is surely above it. Default: no such end.",
    ),
    option(
        "--target-roofline",
        group=BUDGET,
        type=Number(0, 1, min_open=True),
        help="Stop once a kernel measured twice is surely at this share of its roofline, the time in which "
        "the task's bytes can be moved once. Default: no such end.",
    ),
    option(
        "--num-candidates",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.num_candidates,
        help="Candidates that are improved side by side.",
    ),
    option(
        "--num-proposals",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.num_proposals,
        help="New kernels proposed from each of them in a round.",
    ),
    option(
        "--in-flight",
        "max_in_flight",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.max_in_flight,
        help="How many kernels of one search may be asked for or wait for their result. Few leave budget for "
        "what the first results teach, where a spool waits for its device.",
    ),
    option(
        "--epsilon",
        group=EXPERT,
        type=Number(0, 2),
        default=SETTINGS.epsilon,
        help="Distance of embeddings under which a proposal counts as known (algorithms with epsNet).",
    ),
    option(
        "--score-function",
        group=EXPERT,
        type=Name("score function", ScoreFunction),
        default=SETTINGS.score_function,
        help="A candidate's priority: its mean score; with a bonus (ucb) or a malus (lcb) while it has been "
        "measured little.",
    ),
    option(
        "--synchronous",
        group=EXPERT,
        is_flag=True,
        help="PrioritySearch as published: steps with barriers, one after the other.",
    ),
)
"""What the searches of a sweep have in common; algorithms and seeds are the sweep's own lists."""

search_options = options(
    option(
        "--algorithm",
        type=Name("algorithm", Algorithm),
        default=SETTINGS.algorithm,
        help="PS is PrioritySearch; epsNet drops near-duplicates, Summarizer adds advice from all that was "
        "tried; best_of_n and random are baselines.",
    ),
    option("--seed", type=click.IntRange(0), default=SETTINGS.seed, help="Seed of all random choices."),
    *each_search_options,
)


def limit_option(name: str, kind: click.ParamType[Any], what: str) -> Callable[[F], F]:
    """A limit of the budget, of which there is none unless it is given; `what` says of what."""
    return option(name, group=BUDGET, type=kind, help=f"{what}. Default: no limit.")


budget_options = options(
    limit_option("--max-evals", click.IntRange(1), "Stop after so many evaluations"),
    limit_option("--max-usd", Number(0), "Stop after so many dollars for models and rented containers"),
    limit_option("--max-tokens", click.IntRange(1), "Stop after so many tokens"),
    limit_option("--max-minutes", Number(0, min_open=True), "Stop after so many minutes"),
)


def new_limit_option(name: str, field: str, kind: click.ParamType[Any], what: str) -> Callable[[F], F]:
    """A limit to be raised: `field` is its name in `Raised`."""
    said = f"Raise the limit to so many {what} in all. Default: it stays."
    return option(name, field, group=BUDGET, type=kind, help=said)


raise_options = options(
    new_limit_option("--num-steps", "num_steps", click.IntRange(1), "rounds of proposals"),
    new_limit_option("--max-evals", "evaluations", click.IntRange(1), "evaluations"),
    new_limit_option("--max-usd", "usd", Number(0), "dollars"),
    new_limit_option("--max-tokens", "tokens", click.IntRange(1), "tokens"),
    new_limit_option("--max-minutes", "minutes", Number(0, min_open=True), "minutes"),
)
"""What `resume` may raise: every limit of `run` and `sweep`."""

search_verdict_option = option(
    "--verdict",
    group=EXPERT,
    type=Name("verdict", Verdict),
    default="strict",
    help="Which one --verbose prints; strict ranks. KernelBench's is computed for the best kernel at the "
    "end, with kernelbench or both for each.",
)
