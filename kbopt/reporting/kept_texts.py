"""Which texts of a journal are held in memory, and how much of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import Audit, Measured
from kbopt.reporting.records import Node
from kbopt.reporting.text import truncated

TEXT_LIMIT_CHARS = 20_000
"""Of a log, a feedback or an error; the rest stays in the journal."""

_BARE_AUDITS = (Audit(custom_kernel=False), Audit(custom_kernel=True))
_NO_SECONDS = Seconds()


def shown_nodes(nodes: Mapping[str, Node], best: Node | None, limit: int) -> list[Node]:
    """The nodes a page shows: all, or the best half, their line of parents, and the newest of the rest.

    In the order of proposal. Nodes whose texts were let go are left out.
    """
    whole = [node for node in nodes.values() if node.has_texts]
    if len(whole) <= limit:
        return whole
    kept = {node.candidate.id: node for node in _line_of(best, nodes) if node.has_texts}
    ranked = sorted(whole, key=lambda node: node.speedup or 0.0, reverse=True)
    for node in (*ranked[: limit // 2], *reversed(whole)):
        if len(kept) >= limit:
            break
        kept[node.candidate.id] = node
    return sorted(kept.values(), key=lambda node: node.index)


def _line_of(node: Node | None, nodes: Mapping[str, Node]) -> list[Node]:
    line: list[Node] = []
    while node is not None and node not in line:
        line.append(node)
        node = nodes.get(node.candidate.parent or "")
    return line


def let_texts_go(nodes: Mapping[str, Node], best: Node | None, limit: int) -> None:
    """Leave to `limit` nodes, and to those that wait for a result, their texts."""
    kept = {id(node) for node in shown_nodes(nodes, best, limit)}
    for node in nodes.values():
        waits = not node.results and node.dropped is None
        if node.has_texts and id(node) not in kept and not waits:
            node.has_texts = False
            node.candidate = replace(node.candidate, source="", note="", usage=())
            node.results = tuple(_bare(result) for result in node.results)
            node.exemplars = ()


def bounded(result: Result) -> Result:
    """`result` with at most `TEXT_LIMIT_CHARS` of its log and of its feedback."""
    if max(len(result.log), len(result.feedback)) <= TEXT_LIMIT_CHARS:
        return result
    log = truncated(result.log, TEXT_LIMIT_CHARS)
    return replace(result, log=log, feedback=truncated(result.feedback, TEXT_LIMIT_CHARS))


def _bare(result: Result) -> Result:
    """What ranks a candidate and counts it, and nothing else: a tenth of the memory."""
    outcome = result.outcome
    if isinstance(outcome, Measured):
        audit = _BARE_AUDITS[outcome.audit.custom_kernel]
        outcome = replace(outcome, kernel_ms=(), reference_ms=(), audit=audit, roofline=None, speedups=())
    else:
        outcome = replace(outcome, reason="")
    return Result(
        outcome=outcome,
        feedback="",
        device=sys.intern(result.device),
        protocol=sys.intern(result.protocol),
        boot=sys.intern(result.boot),
        seconds=_NO_SECONDS,
        device_s=0.0,
    )
