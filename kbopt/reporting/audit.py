"""What an audit of published kernels found: each kernel's standing, the sums over them, and sentences."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kbopt.core.outcomes import Family
from kbopt.reporting.text import figure, plural

Standing = Literal[
    "confirmed",
    "not faster",
    "wrong",
    "rejected",
    "failed",
    "packages",
    "refused",
    "lost",
    "waiting",
    "broken",
    "empty",
]
STANDINGS: Mapping[Standing, str] = {
    "confirmed": "correct and faster than eager PyTorch",
    "not faster": "correct, not faster with confidence",
    "wrong": "with wrong answers",
    "rejected": "rejected by an audit",
    "failed": "not built, crashed or timed out",
    "packages": "in need of packages that are not there",
    "refused": "with a task that cannot be scored here",
    "lost": "lost with a machine that failed",
    "waiting": "not judged yet",
    "broken": "that cannot be read",
    "empty": "published without a kernel",
}
"""What each standing means, in the order in which they are told."""

FAMILIES: Mapping[Family, str] = {
    "aliased_input": "It returns memory of its input instead of an answer of its own.",
    "extra_threads": "It kept more cores busy than the reference is given.",
    "forged_verdict": "It sent messages in the judge's name, or tried to escape its pause.",
    "implausible": "It is faster than the device can read its inputs and write its outputs.",
    "input_mutation": "It wrote to its inputs, which belong to the caller: who reads them next finds others.",
    "output_layout": "Elements of its output share memory, so that it wrote less than it returned.",
    "output_type": "It returned something that poses as a tensor and computes later.",
    "precision_downgrade": "It computed in a lower precision than the task asks for.",
    "reused_output": "It returned the same memory in two calls: the second overwrites the first answer.",
    "timing_mismatch": "It did work where the timer does not look: its clock and the judge's disagree.",
    "torch_ops": "It called PyTorch's operators, which the protocol forbids.",
    "value_specialisation": "It is right for inputs as the task draws them, and wrong on others it allows.",
}
"""What a kernel of each family did, for a reader who knows none of the judge's names."""

RATIOS = (0.5, 0.8, 1.25, 2.0)
"""Ends of the classes of confirmed over claimed speedup. 0.8 to 1.25 counts as agreement: two devices of one
kind, and two ways to time, differ by so much; the outer ends are a factor of two."""

_MISSING = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """An entry of a set with what became of it.

    `line` is the judgement as JSON, empty where there is none; `reason` then says why. `claim` is the stated
    speedup over eager PyTorch, `claimed_on` the device as the set names it. With `own_reference` the set's
    own reference said what is correct. `command` reproduces the line.
    """

    name: str
    where: str
    task: str
    standing: Standing
    reason: str = ""
    claim: float | None = None
    claimed_on: str = ""
    own_reference: bool = False
    source: str = ""
    command: str = ""
    line: Mapping[str, Any]

    @property
    def speedup(self) -> float | None:
        return self.line.get("speedup")

    @property
    def by_kernelbench(self) -> bool | None:
        """Whether KernelBench's own protocol finds it correct; None where it was not asked."""
        verdict = self.line.get("kernelbench")
        return bool(verdict["correctness"]) if verdict else None

    @property
    def missing(self) -> str:
        """The package that it needs and that is not there; empty where it lacks none."""
        return missing_package(self.line)

    def over(self, baseline: str) -> float | None:
        """The speedup over that baseline by the device's clock; None where it was not measured."""
        found = (
            one["speedup"]
            for one in self.line.get("speedups", ())
            if (one["baseline"], one["clock"]) == (baseline, "device") and not one["reason"]
        )
        return next(found, None)


def standing_of(line: Mapping[str, Any]) -> Standing:
    """What a judgement makes of a kernel. It is confirmed where the whole 95 % interval lies above 1."""
    match line["outcome"]:
        case "measured":
            return "confirmed" if line["speedup_ci"][0] > 1 else "not faster"
        case "wrong_answer":
            return "wrong"
        case "rejected":
            return "rejected"
        case None if not missing_package(line):
            return "refused" if line.get("refused") else "lost"
        case _:
            return "packages" if missing_package(line) else "failed"


def missing_package(line: Mapping[str, Any]) -> str:
    """The package that could not be imported, of a kernel that therefore did not run; else empty."""
    if line.get("outcome") not in ("compile_failed", "crashed", None):
        return ""
    found = _MISSING.search(str(line.get("reason") or ""))
    return found[1].partition(".")[0] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Counts over the entries of a set. Means are geometric, over the kernels that have both figures."""

    entries: int
    standings: Mapping[Standing, int]
    only_pytorch: int
    wrong_to_us_alone: int
    rejected_to_us_alone: int
    families: Mapping[str, int]
    packages: Mapping[str, int]
    claims: int
    compared: int
    claimed_mean: float | None
    measured_mean: float | None
    claims_reached: int
    ratios: tuple[int, ...]


def sums(rows: Sequence[Audited]) -> Sums:
    """Count. A claim is reached where the upper end of the interval is not below it."""
    unjudged = ("waiting", "broken", "empty")
    judged = [row for row in rows if row.claim is not None and row.standing not in unjudged]
    both = [(row.claim, row.speedup) for row in judged if row.claim and row.speedup]
    ratios = [measured / claimed for claimed, measured in both]
    return Sums(
        entries=len(rows),
        standings=Counter(row.standing for row in rows),
        only_pytorch=sum(
            row.standing == "confirmed" and row.line.get("custom_kernel") is False for row in rows
        ),
        wrong_to_us_alone=sum(row.standing == "wrong" and row.by_kernelbench is True for row in rows),
        rejected_to_us_alone=sum(row.standing == "rejected" and row.by_kernelbench is True for row in rows),
        families=_ranked(
            str(row.line.get("family") or "rejected") for row in rows if row.standing == "rejected"
        ),
        packages=_ranked(row.missing for row in rows if row.standing == "packages"),
        claims=len(judged),
        compared=len(both),
        claimed_mean=statistics.geometric_mean([claimed for claimed, _ in both]) if both else None,
        measured_mean=statistics.geometric_mean([measured for _, measured in both]) if both else None,
        claims_reached=sum(bool(row.speedup) and row.line["speedup_ci"][1] >= row.claim for row in judged),
        ratios=tuple(
            sum(low <= ratio < high for ratio in ratios)
            for low, high in zip((0.0, *RATIOS), (*RATIOS, float("inf")), strict=True)
        ),
    )


def _ranked(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def told(found: Sums) -> tuple[str, ...]:
    """The sums in lines of text."""
    toward = "correct to KernelBench's own protocol"
    more: dict[Standing, str] = {
        "confirmed": f", {found.only_pytorch} with PyTorch's own operators alone",
        "wrong": f", {found.wrong_to_us_alone} {toward}",
        "rejected": f" ({_listed(found.families)}), {found.rejected_to_us_alone} {toward}",
        "packages": f" ({_listed(found.packages)})",
    }
    lines = [f"{found.entries:>5,} {'entry' if found.entries == 1 else 'entries'}"]
    for standing, meaning in STANDINGS.items():
        count = found.standings.get(standing, 0)
        if count or standing == "confirmed":
            start = "confirmed: " if standing == "confirmed" else ""
            lines.append(f"{count:>5,} {start}{meaning}{more.get(standing, '') if count else ''}")
    return (*lines, _claims_told(found))


def _claims_told(found: Sums) -> str:
    if not found.claims:
        return "The set states no speedups."
    if found.claimed_mean is None or found.measured_mean is None:
        return f"Of {plural(found.claims, 'claim')} none is of a kernel whose speedup could be measured."
    return (
        f"Geometric mean over the {plural(found.compared, 'kernel')} with a claim and a measured speedup: "
        f"claimed {figure(found.claimed_mean)}x, measured {figure(found.measured_mean)}x; "
        f"{found.claims_reached} of {plural(found.claims, 'claim')} reached by the interval"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def ratio_names() -> tuple[str, ...]:
    """The classes of `Sums.ratios`, such as `0.8 to 1.25 times the claim`."""
    first, last = RATIOS[0], RATIOS[-1]
    between = [f"{low:g} to {high:g} times the claim" for low, high in itertools.pairwise(RATIOS)]
    return (f"less than {first:g} times the claim", *between, f"{last:g} times the claim and more")
