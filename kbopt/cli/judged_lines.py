"""The lines of `kbopt audit` and `kbopt eval --out`, read back: only those count whose fields can be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from kbopt.core import codec
from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.outcomes import Family, Speedup
from kbopt.core.text import plural

_MOST_TOLD = 3
"""Lines that are told one by one."""
_FASTEST = 1e9
"""A speedup from here on, or below its inverse, is no measurement: a call takes 1 ns to 1000 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The fields of a line that are computed with. It may have others."""

    key: str
    outcome: Literal["measured", "wrong_answer", "compile_failed", "crashed", "timed_out", "rejected"] | None
    task: str | None = None
    candidate: str | None = None
    reason: str | None = None
    family: Family | None = None
    refused: bool = False
    speedup: float | None = None
    speedup_ci: tuple[float, float] | None = None
    speedups: tuple[Speedup, ...] = ()
    kernelbench: Mapping[str, object] | None = None
    custom_kernel: bool | None = None
    device: str | None = None
    protocol: str | None = None
    torch: str | None = None


_NAMES = frozenset(field.name for field in fields(_Judged))


def judged_lines(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the judgements that `out` holds, and sentences about lines that are none. Raises OSError.

    A file that is not there holds none.
    """
    if not out.exists():
        return [], []
    lines: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, text in enumerate(out.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            lines.append(_judged(text))
        except (ValueError, RecursionError) as error:
            faults.append(f"{out}, line {number} does not count: {error}")
    told = faults[:_MOST_TOLD]
    if len(faults) > _MOST_TOLD:
        told.append(f"{out} has {plural(len(faults) - _MOST_TOLD, 'further line')} that cannot be used")
    return lines, told


def _judged(text: str) -> dict[str, Any]:
    """Return a line's fields. Raises ValueError and RecursionError."""
    try:
        line = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(line, dict):
        raise ValueError("it is no JSON object")
    if not {"key", "outcome"} <= line.keys():
        raise ValueError("it has no key and no outcome, as a judgement has")
    found = codec.decode(_Judged, {name: value for name, value in line.items() if name in _NAMES})
    if found.kernelbench is not None:
        codec.decode(KernelBenchVerdict, found.kernelbench)
    if found.outcome == "measured":
        low, high = found.speedup_ci or (0.0, 0.0)
        figures = (low, found.speedup or 0.0, high)
        if not all(math.isfinite(figure) and 1 / _FASTEST < figure < _FASTEST for figure in figures):
            raise ValueError(f"its speedup is {found.speedup} with the interval {low} to {high}")
    return line
