"""What the page holds of a run, as JSON values: rows, bars, and the texts of each candidate shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pygments import lex
from pygments.lexers.c_like import CudaLexer
from pygments.lexers.python import PythonLexer
from pygments.token import STANDARD_TYPES

from kbopt.core import codec
from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Measured
from kbopt.core.scoring import HeadlineState, headline_state
from kbopt.core.text import first_line
from kbopt.reporting.evidence import evidence
from kbopt.reporting.history import BARS_KEPT, History
from kbopt.reporting.records import Bar, Node
from kbopt.reporting.run import Run
from kbopt.reporting.summary import summarize_history
from kbopt.reporting.text import truncated

CANDIDATES_SHOWN = 2_000
"""By one page, over all of its runs."""

HIGHLIGHTED_CHARS = 120_000
"""Syntax colouring costs about 1.5 us per character, so it goes to the best kernels first."""

TRANSCRIPT_CHARS = 1_500_000
"""Of all prompts and answers on a page, the best candidates' first."""

FEEDBACK_CHARS = 20_000
"""Of one kernel's feedback on a page of many: a compiler can say megabytes, and there are hundreds."""

ONE_TRANSCRIPT_CHARS = 40_000

_C_SOURCE = re.compile(r"^\s*#include\b|\b__global__\b", re.MULTILINE)


def run_data(
    run: Run,
    history: History,
    *,
    shown: list[Node],
    changed_after: int = 0,
    max_bars: int = BARS_KEPT,
) -> dict[str, Any]:
    """Everything but the texts of the candidates: the rows of those in `shown`, and what is drawn.

    With `changed_after` only the rows that an entry above that number changed.
    """
    bars = list(history.bars)[-max_bars:]
    return {
        "name": run.name,
        "entries": history.entries,
        "task": {"name": run.task.name, "family": run.task.family, "source": tokens(run.task.source)},
        "settings": codec.encode(run.settings),
        "config": codec.encode(run.config),
        "summary": codec.encode(summarize_history(run, history)),
        "reproduce": [run.reproduce, run.reproduce_elsewhere],
        "rows": [row(node) for node in shown if node.changed > changed_after],
        "tree": tree_places(shown),
        "bars": bar_columns(bars),
        "left_out": {
            "candidates": len(history.nodes) - len(shown),
            "bars": history.num_bars - len(bars),
        },
    }


def row(node: Node) -> dict[str, Any]:
    """The candidate's line in the table and point in the charts."""
    return {
        "id": node.candidate.id,
        "index": node.index,
        "parent": node.candidate.parent,
        "status": node.status,
        "speedup": node.speedup,
        "ci": list(node.ci) if node.ci else None,
        "state": _state(node),
        "minutes": node.minutes,
        "evaluations": node.evaluations,
        "staleness": node.staleness,
        "measurements": len(node.results),
        "proposer": node.candidate.proposer,
        "action": node.action,
        "strategy": node.strategy,
        "note": first_line(node.candidate.note, 160),
        "neighbour": node.dropped.neighbour if node.dropped else None,
    }


def _state(node: Node) -> HeadlineState | None:
    measured = [result.outcome for result in node.results if isinstance(result.outcome, Measured)]
    if not measured or node.ci is None:
        return None
    return headline_state(node.ci, custom_kernel=measured[-1].audit.custom_kernel)


def bar_columns(bars: Iterable[Bar]) -> dict[str, list[Any]]:
    """The bars as columns by start, in minutes with a resolution of a millisecond.

    Each takes the first lane of its group that is free when it begins: as many lanes as worked at once.
    """
    ordered = sorted(bars, key=lambda bar: bar.start)
    busy_until: dict[str, list[float]] = {}
    lanes = []
    for bar in ordered:
        ends = busy_until.setdefault(bar.group, [])
        # Unix seconds are exact to a quarter of a microsecond: what follows at once shares the lane.
        free = next((i for i, end in enumerate(ends) if end <= bar.start + 1e-6), len(ends))
        ends[free : free + 1] = [bar.end]
        lanes.append((bar.group, free + 1))
    return {
        "lane": [f"{group} {lane}" if len(busy_until[group]) > 1 else group for group, lane in lanes],
        "stage": [bar.stage for bar in ordered],
        "candidate": [bar.candidate for bar in ordered],
        "start": [round(bar.start, 5) for bar in ordered],
        "length": [round(bar.end - bar.start, 5) for bar in ordered],
    }


def tree_places(nodes: list[Node]) -> dict[str, list[float]]:
    """Where each candidate stands in the tree: `x` among its generation, and the generation from 0.

    Leaves get one column each, from left to right in the order of a walk through the tree; a parent
    stands in the middle of its children. A candidate whose parent is not shown starts a tree.
    """
    ids = {node.candidate.id for node in nodes}
    children: dict[str, list[str]] = {}
    roots: list[str] = []
    for node in nodes:
        parent = node.candidate.parent
        if parent in ids and parent is not None:
            children.setdefault(parent, []).append(node.candidate.id)
        else:
            roots.append(node.candidate.id)
    places: dict[str, list[float]] = {}
    column = 0.0
    stack = [(root, 0, False) for root in reversed(roots)]
    while stack:
        name, depth, done = stack.pop()
        below = children.get(name, [])
        if done:
            xs = [places[child][0] for child in below]
            places[name] = [(xs[0] + xs[-1]) / 2, depth]
        elif below:
            stack.append((name, depth, True))
            stack.extend((child, depth + 1, False) for child in reversed(below))
        else:
            places[name] = [column, depth]
            column += 1
    return places


def details(run: Run, history: History, shown: list[Node]) -> dict[str, Any]:
    """The texts of the candidates in `shown`; colour and transcripts go to the best ones first."""
    colour_left, transcript_left = HIGHLIGHTED_CHARS, TRANSCRIPT_CHARS
    found: dict[str, Any] = {}
    for node in sorted(shown, key=lambda n: n.speedup or 0.0, reverse=True):
        coloured = len(node.candidate.source) <= colour_left
        detail = candidate_detail(run, history, node, coloured=coloured, with_transcript=transcript_left > 0)
        colour_left -= len(node.candidate.source) if coloured else 0
        transcript_left -= len(detail["transcript"] or "")
        found[node.candidate.id] = detail
    return found


def candidate_detail(
    run: Run, history: History, node: Node, *, coloured: bool = True, with_transcript: bool = True
) -> dict[str, Any]:
    """Source, diffs, feedback, log, prompt and answer, and every measurement of one candidate."""
    candidate = node.candidate
    parent = history.nodes.get(candidate.parent or "")
    transcript = run.transcripts(candidate.id) if with_transcript else None
    is_best = history.best is node
    last = node.results[-1] if node.results else None
    return {
        "source": tokens(candidate.source) if coloured else [["", candidate.source]],
        "diff": diff(parent.candidate.source, candidate.source) if parent and parent.has_texts else None,
        "reference_diff": diff(run.task.source, candidate.source) if is_best else None,
        "note": candidate.note,
        "exemplars": list(node.exemplars),
        "profiles": list(node.profiles),
        "tunables": [list(pair) for pair in node.tunables],
        "feedback": last.feedback if last else "",
        "log": last.log if last else "",
        "transcript": truncated(transcript, ONE_TRANSCRIPT_CHARS) if transcript else None,
        "transcript_left_out": not with_transcript,
        "evidence": codec.encode(evidence(node.trial)) if is_best else [],
        "results": [_result(result, with_samples=is_best) for result in node.results],
    }


def _result(result: Result, *, with_samples: bool) -> Mapping[str, Any]:
    outcome = result.outcome
    if isinstance(outcome, Measured) and not with_samples:
        result = replace(result, outcome=replace(outcome, kernel_ms=(), reference_ms=()))
    return codec.encode(replace(result, feedback="", log="", spans=()))


def coloured(sources: Sequence[str]) -> list[list[list[str]]]:
    """The tokens of each source. Colour goes to the first ones, as much as a report's page has."""
    colour_left = HIGHLIGHTED_CHARS
    found = []
    for source in sources:
        has_colour = len(source) <= colour_left
        colour_left -= len(source) if has_colour else 0
        found.append(tokens(source) if has_colour else [["", source]])
    return found


def tokens(source: str) -> list[list[str]]:
    """The source as `[Pygments class, text]` pairs that join to it; neighbours of one class are merged.

    A string that holds C or CUDA, which most kernels consist of, is coloured as such.
    """
    pairs: list[list[str]] = []
    for name, text in _merged(lex(source, PythonLexer(stripnl=False, ensurenl=False))):
        if name.startswith("s") and _C_SOURCE.search(text):
            pairs += _merged(lex(text, CudaLexer(stripnl=False, ensurenl=False)))
        else:
            pairs.append([name, text])
    return pairs


def _merged(lexed: Iterable[tuple[Any, str]]) -> list[list[str]]:
    merged: list[list[str]] = []
    for kind, text in lexed:
        name = STANDARD_TYPES.get(kind, "")
        if merged and merged[-1][0] == name:
            merged[-1][1] += text
        else:
            merged.append([name, text])
    return merged


def diff(before: str, after: str) -> str:
    """The unified diff, empty for equal sources."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=3)
    return "\n".join(list(lines)[2:])
