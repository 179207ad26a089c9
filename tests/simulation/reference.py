"""The original PrioritySearch, written down as plainly as it is described: nested loops, no events.

Independent of `kbopt.core.stepwise`: it shares with it only the simulated world and the distance of two
sources. Each candidate is a dictionary; copies of the first kernel are candidates of their own.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from kbopt.core.embedding import LocalEmbedder
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.outcomes import Measured
from kbopt.core.proposals import Brief, Candidate, Trial
from kbopt.core.protocol import EvalProtocol
from kbopt.simulated.backend import judge


def original_priority_search(settings, landscape, proposer):
    """(evaluations in order as (id, repeat), parents by proposal, dropped ids, best id after each step)."""
    evaluations, parents, dropped, answers = [], {}, [], []
    results: dict[str, list[Result]] = {}
    seen_scores: list[float] = []

    def evaluate(item):
        repeat = len(results.setdefault(item["id"], []))
        request = EvalRequest(
            task=landscape.task, source=item["source"], protocol=EvalProtocol(), repeat=repeat
        )
        result = judge(request)
        evaluations.append((item["id"], repeat))
        results[item["id"]].append(result)
        value = result.outcome.speedup if isinstance(result.outcome, Measured) else 0.0
        item["scores"].append(value)
        seen_scores.append(value)

    def propose(parent):
        number = len(parents) + 1
        seed = (
            int.from_bytes(hashlib.sha256(f"{settings.seed}/{number}".encode()).digest()[:8], "little") >> 1
        )
        trial = None
        if parent is not None:
            candidate = Candidate(
                id=parent["id"], source=parent["source"], parent=None, proposer="", memory_version=0
            )
            trial = Trial(candidate=candidate, results=tuple(results[parent["id"]]))
        brief = Brief(
            id=f"c{number:06d}",
            task=landscape.task,
            parent=trial,
            exemplars=(),
            summary="",
            seed=seed,
            memory_version=len(evaluations),
        )
        parents[brief.id] = parent and parent["id"]
        return {"id": brief.id, "source": proposer.answer(brief).source, "scores": [], "born": None}

    def mean(item):
        return sum(item["scores"]) / len(item["scores"])

    def priority(item, n_steps):
        if settings.score_function == "mean":
            return mean(item)
        spread = max(seen_scores) - min(seen_scores)
        bonus = settings.exploration * math.sqrt(math.log(n_steps + 2) / len(item["scores"])) * spread
        return min(mean(item) + bonus, max(seen_scores))

    born = 0

    def create(item):
        nonlocal born
        born += 1
        item["born"] = born
        return item

    first = propose(None)
    explored = [create({**first, "scores": []}) for _ in range(settings.num_candidates)]
    memory: list[dict] = []
    for item in explored:
        evaluate(item)
    for step in range(1, settings.num_steps + 1):
        proposals = [propose(parent) for _ in range(settings.num_proposals) for parent in explored]
        if settings.uses_epsilon_net:
            proposals, gone = farthest_insertion(proposals, memory + explored, settings.epsilon)
            dropped += gone
        survivors = [create(item) for item in proposals]
        for item in survivors:
            evaluate(item)
        for item in survivors + explored:
            item["priority"] = priority(item, step)
            memory.append(item)
        answers.append(max(memory, key=lambda item: (mean(item), item["born"]))["id"])
        if step < settings.num_steps:
            memory.sort(key=lambda item: (item["priority"], item["born"]), reverse=True)
            explored, memory = memory[: settings.num_candidates], memory[settings.num_candidates :]
            for item in explored:
                evaluate(item)
    return evaluations, parents, dropped, answers


def farthest_insertion(proposals, known, epsilon):
    """(survivors in the order of proposal, dropped ids)."""
    embed = LocalEmbedder().embed
    net = [embed([item["source"]])[0] for item in known]
    left, kept = list(proposals), []

    def distance(item):
        return min(float(np.linalg.norm(embed([item["source"]])[0] - point)) for point in net)

    while left:
        left = [item for item in left if distance(item) > epsilon]
        if left:
            farthest = max(left, key=distance)
            left = [item for item in left if item is not farthest]
            kept.append(farthest)
            net.append(embed([farthest["source"]])[0])
    kept_ids = {item["id"] for item in kept}
    survivors = [item for item in proposals if item["id"] in kept_ids]
    return survivors, sorted(item["id"] for item in proposals if item["id"] not in kept_ids)
