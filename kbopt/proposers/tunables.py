"""A proposer that needs no key: it starts from seed kernels and varies what their comments let it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.task import Seed, seed_name
from kbopt.core.tune_comments import Tunable, parse, substitute
from kbopt.proposers.journal_summary import OTHER, Choice, Evidence, Score
from kbopt.proposers.journal_summary import parse as parse_summary
from kbopt.proposers.seeds import DeviceKind, seeds_for

T = TypeVar("T")

DEFAULT_SHARE = 0.6
"""Chance that a tunable of a new seed keeps the value it ships with, which is a good one."""

SWITCH_SHARE = 0.2
"""Chance that a parent is left for another seed kernel."""

TWO_SHARE = 0.35
"""Chance that two tunables change at once: some only pay together."""

SHARPNESS = 2.0
"""How strongly evidence steers: a choice with twice the speedup is taken 2**SHARPNESS times as often."""

ATTEMPTS = 32
"""Draws before all variations are listed: a small space may be nearly used up."""


class TunablesProposer:
    """Answers every brief with a seed kernel or with a variation of the parent; never with the parent.

    The seeds are `starts`, else those that ship with kbopt for the task's family. The answer depends on the
    brief alone. `summary` biases it where the journal's summarizer wrote it.
    """

    name = "tunables"

    def __init__(self, *, device_kind: DeviceKind, starts: tuple[Seed, ...] = ()) -> None:
        self._device_kind: DeviceKind = device_kind
        self._starts = starts

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        rng = random.Random(brief.seed)
        seeds = self._starts or seeds_for(brief.task.family, self._device_kind)
        evidence = parse_summary(brief.summary)
        if brief.parent is None:
            return _first(brief, seeds, evidence, rng)
        parent = brief.parent.candidate.source
        refine = brief.action == "refine"
        known = {parent, *(trial.candidate.source for trial in brief.exemplars)}
        others = () if refine else tuple(seed for seed in seeds if seed.name != seed_name(parent))
        for _ in range(ATTEMPTS):
            source = _variation(parent, others, evidence, rng)
            if source and source not in known:
                return _answer(brief, source, _difference(parent, source))
        left = [source for source in _neighbours(parent, others) if source not in known]
        if left:
            source = rng.choice(left)
            return _answer(brief, source, _difference(parent, source))
        return NoProposal(reason=_exhausted(parent, refine))


def _first(
    brief: Brief, seeds: Sequence[Seed], evidence: Evidence, rng: random.Random
) -> Candidate | NoProposal:
    if not seeds:
        return NoProposal(reason=f"no seed kernel fits {brief.task.name}: use --start FILE or --proposer llm")
    seed = _draw(rng, seeds, [_weight(evidence, Choice(seed=item.name)) for item in seeds])
    values = {}
    for tunable in parse(seed.source):
        if tunable.choices and rng.random() > DEFAULT_SHARE:
            values[tunable.name] = _pick(tunable.choices, tunable, seed.name, evidence, rng)
    source = substitute(seed.source, values)
    return _answer(brief, source, _difference(seed.source, source) or f"{seed.name} as it ships")


def _variation(parent: str, others: Sequence[Seed], evidence: Evidence, rng: random.Random) -> str | None:
    """One drawn neighbour of `parent`: another seed that keeps common values, or one or two new values."""
    varied = [tunable for tunable in parse(parent) if tunable.alternatives]
    if others and (not varied or rng.random() < SWITCH_SHARE):
        seed = _draw(rng, others, [_weight(evidence, Choice(seed=item.name)) for item in others])
        return _switched(parent, seed)
    if not varied:
        return None
    count = 2 if len(varied) > 1 and rng.random() < TWO_SHARE else 1
    name = seed_name(parent) or OTHER
    changed = rng.sample(varied, count)
    values = {item.name: _pick(item.alternatives, item, name, evidence, rng) for item in changed}
    return substitute(parent, values)


def _switched(parent: str, seed: Seed) -> str:
    """`seed` with the values of the parent's tunables that it has too and allows."""
    values = {tunable.name: tunable.value for tunable in parse(parent)}
    common = {
        item.name: values[item.name] for item in parse(seed.source) if values.get(item.name) in item.choices
    }
    return substitute(seed.source, common)


def _neighbours(parent: str, others: Sequence[Seed]) -> Iterator[str]:
    """Every source that `_variation` can draw."""
    yield from (_switched(parent, seed) for seed in others)
    varied = [tunable for tunable in parse(parent) if tunable.alternatives]
    for count in (1, 2):
        for changed in itertools.combinations(varied, count):
            for values in itertools.product(*(item.alternatives for item in changed)):
                names = (item.name for item in changed)
                yield substitute(parent, dict(zip(names, values, strict=True)))


def _pick(values: Sequence[str], tunable: Tunable, seed: str, evidence: Evidence, rng: random.Random) -> str:
    choices = [Choice(seed=seed, name=tunable.name, value=value) for value in values]
    return _draw(rng, values, [_weight(evidence, choice) for choice in choices])


def _weight(evidence: Evidence, choice: Choice) -> float:
    """How much the evidence speaks for a choice; that of an average one where nothing is known of it.

    Failures lower the weight by their share, with one success assumed: a single kernel that did not
    compile must not close a value for ever.
    """
    peers = [
        score
        for other, score in evidence.scores.items()
        if (other.seed == choice.seed or not choice.name) and other.name == choice.name and score.measured
    ]
    score = evidence.scores.get(choice, Score())
    usual = sum(peer.mean_log for peer in peers) / len(peers) if peers else 0.0
    mean_log = score.mean_log if score.measured else usual
    reliability = (score.measured + 1) / (score.measured + score.failed + 1)
    return math.exp(SHARPNESS * (mean_log - usual)) * reliability


def _draw(rng: random.Random, items: Sequence[T], weights: Sequence[float]) -> T:
    return rng.choices(items, weights)[0]


def _difference(before: str, after: str) -> str:
    """What changed, in one line: `UNROLL 2 -> 4, CHUNK 8192 -> 4096`, or the seeds' names."""
    if seed_name(before) != seed_name(after):
        return f"switch to {seed_name(after)}"
    old = {tunable.name: tunable.value for tunable in parse(before)}
    changes = [f"{t.name} {old[t.name]} -> {t.value}" for t in parse(after) if old[t.name] != t.value]
    return ", ".join(changes)


def _exhausted(parent: str, refine: bool) -> str:
    if not any(tunable.alternatives for tunable in parse(parent)):
        what = "the parent has no `# tune:` comments with alternatives"
        return what if refine else f"{what}, and the task has no other seed kernels"
    return "every variation of the parent is already known"


def _answer(brief: Brief, source: str, note: str) -> Candidate:
    return Candidate(
        id=brief.id,
        source=source,
        parent=brief.parent.candidate.id if brief.parent else None,
        proposer="tunables",
        memory_version=brief.memory_version,
        note=note,
    )
