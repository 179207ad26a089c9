"""The page of an audit: claims against what was measured, why kernels fell, and each kernel's evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core import codec
from kbopt.core.text import first_line
from kbopt.reporting.audit import FAMILIES, STANDINGS, Audited, Sums, ratio_names, sums
from kbopt.reporting.page_data import FEEDBACK_CHARS, coloured
from kbopt.reporting.report import render, write_page
from kbopt.reporting.text import truncated

SCRIPTS = ("elements.js", "charts.js", "frame.js", "kernels.js", "audit.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What was audited and how. `torch` is None where the device is on another machine."""

    name: str
    path: str
    form: str
    device: str
    torch: str | None
    protocol: str
    command: str


def write_audit(header: Header, rows: Sequence[Audited], out: Path) -> Path:
    """Write the page to `out` and return it. Raises `UserError` where it cannot be written."""
    return write_page(render(page_data(header, rows), f"audit of {header.name}", SCRIPTS), out)


def page_data(header: Header, rows: Sequence[Audited]) -> dict[str, Any]:
    """The page's data as plain JSON."""
    found = sums(rows)
    return {
        "made": time.time(),
        "header": codec.fields_of(header),
        "sums": codec.fields_of(found),
        "standings": STANDINGS,
        "families": _families(found, rows),
        "ratios": [list(pair) for pair in zip(ratio_names(), found.ratios, strict=True)],
        "rows": [
            _row(row, source)
            for row, source in zip(rows, coloured([row.source for row in rows]), strict=True)
        ],
    }


def _families(found: Sums, rows: Sequence[Audited]) -> list[dict[str, Any]]:
    """Each family with its count, its sentence, and the first kernel of it as an example."""
    told = []
    for family, count in found.families.items():
        example = next(
            i
            for i, row in enumerate(rows)
            if row.standing == "rejected" and (row.line.get("family") or "rejected") == family
        )
        sentence = next((text for name, text in FAMILIES.items() if name == family), "")
        reason = first_line(str(rows[example].line.get("reason") or ""), 300)
        told.append(
            {"name": family, "count": count, "sentence": sentence, "example": example, "reason": reason}
        )
    return told


def _row(row: Audited, source: list[list[str]]) -> dict[str, Any]:
    line = row.line
    return {
        "name": row.name,
        "where": row.where,
        "task": row.task,
        "standing": row.standing,
        "outcome": line.get("outcome"),
        "family": line.get("family"),
        "claim": row.claim,
        "claimed_on": row.claimed_on,
        "own_reference": row.own_reference,
        "speedup": row.speedup,
        "ci": line.get("speedup_ci"),
        "compile": row.over("compile"),
        "max_autotune": row.over("max-autotune"),
        "custom_kernel": line.get("custom_kernel"),
        "kernelbench": row.by_kernelbench,
        "kernelbench_speedup": _kernelbench_speedup(row),
        "package": row.missing,
        "reason": row.reason or line.get("reason") or "",
        "feedback": truncated(str(line.get("feedback") or ""), FEEDBACK_CHARS),
        "command": row.command,
        "source": source,
    }


def _kernelbench_speedup(row: Audited) -> float | None:
    """By KernelBench's own two times, which are of the same inputs in each call; -1 is a time not taken."""
    verdict = row.line.get("kernelbench")
    if not verdict or not verdict["correctness"] or min(verdict["runtime"], verdict["ref_runtime"]) <= 0:
        return None
    return float(verdict["ref_runtime"] / verdict["runtime"])
