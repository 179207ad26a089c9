"""The sums of an audit, its sentences, and the data of its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from kbopt.core.outcomes import Family
from kbopt.reporting.audit import FAMILIES, STANDINGS, Audited, Standing, standing_of, sums, told
from kbopt.reporting.audit_page import Header, page_data, write_audit
from tests.reporting.test_report import page_data as data_in
from tests.support.journals import HOSTILE

CORRECT = {"correctness": True, "runtime": 2.0, "ref_runtime": 3.0}
HEADER = Header(
    name="set",
    path="a/set",
    form="jsonl",
    device="cpu",
    torch="2.13",
    protocol="strict-4",
    command="kbopt audit",
)


def line(outcome: str | None, **fields: Any) -> dict[str, Any]:
    return {"outcome": outcome, "reason": None, "kernelbench": CORRECT, "feedback": "", **fields}


def measured(speedup: float, low: float, high: float, **fields: Any) -> dict[str, Any]:
    return line("measured", speedup=speedup, speedup_ci=[low, high], **{"custom_kernel": True, **fields})


def row(judged: dict[str, Any], claim: float | None = None, **fields: Any) -> Audited:
    standing = standing_of(judged) if judged else fields.pop("standing")
    fields = {"name": "k", "where": "set:1", "task": "t", "source": "x = 1", **fields}
    return Audited(standing=standing, claim=claim, line=judged, **fields)


ROWS = [
    row(measured(2.0, 1.9, 2.1), 2.0),
    row(measured(4.0, 3.5, 4.5, custom_kernel=False), 16.0),
    row(measured(1.0, 0.9, 1.1), 2.0),
    row(line("wrong_answer", reason="expected 1, got 2"), 5.0),
    row(line("rejected", reason="it writes to its inputs", family="input_mutation"), 3.0),
    row(line("compile_failed", reason="ModuleNotFoundError: No module named 'triton.language'"), 1.5),
    row(line("crashed", reason="illegal memory access", kernelbench=None)),
    row(line(None, reason="admission test 'zeros' failed", refused=True)),
    row({}, standing="broken", reason="set:9: no JSON"),
]


def test_each_kind_of_line_has_its_standing() -> None:
    assert [one.standing for one in ROWS] == [
        "confirmed",
        "confirmed",
        "not faster",
        "wrong",
        "rejected",
        "packages",
        "failed",
        "refused",
        "broken",
    ]
    assert standing_of(line(None, reason="the machine is gone")) == "lost"
    assert standing_of(line("timed_out", reason="No module named 'x'")) == "failed"


def test_means_are_geometric_and_of_the_same_kernels() -> None:
    found = sums(ROWS)
    assert (found.entries, found.claims, found.compared) == (9, 6, 3)
    assert found.claimed_mean == pytest.approx(4.0)
    assert found.measured_mean == pytest.approx(2.0)
    assert (found.claims_reached, found.only_pytorch) == (1, 1)
    assert (found.wrong_to_us_alone, found.rejected_to_us_alone) == (1, 1)
    assert found.packages == {"triton": 1}
    assert found.families == {"input_mutation": 1}
    assert found.ratios == (1, 1, 1, 0, 0)


def test_the_summary_says_every_count() -> None:
    assert told(sums(ROWS)) == (
        "    9 entries",
        "    2 confirmed: correct and faster than eager PyTorch, 1 with PyTorch's own operators alone",
        "    1 correct, not faster with confidence",
        "    1 with wrong answers, 1 correct to KernelBench's own protocol",
        "    1 rejected by an audit (1 input_mutation), 1 correct to KernelBench's own protocol",
        "    1 not built, crashed or timed out",
        "    1 in need of packages that are not there (1 triton)",
        "    1 with a task that cannot be scored here",
        "    1 that cannot be read",
        "Geometric mean over the 3 kernels with a claim and a measured speedup: claimed 4.00x, "
        "measured 2.00x; 1 of 6 claims reached by the interval",
    )


def test_a_set_without_claims_or_without_speedups_says_so() -> None:
    assert told(sums([row(measured(2.0, 1.9, 2.1))]))[-1] == "The set states no speedups."
    assert told(sums([row(line("wrong_answer"), 2.0)])) == (
        "    1 entry",
        "    0 confirmed: correct and faster than eager PyTorch",
        "    1 with wrong answers, 1 correct to KernelBench's own protocol",
        "Of 1 claim none is of a kernel whose speedup could be measured.",
    )


def test_every_family_and_standing_has_its_words() -> None:
    assert set(FAMILIES) == set(get_args(Family))
    assert set(STANDINGS) == set(get_args(Standing))


def test_the_page_has_each_row_with_its_figures() -> None:
    speedups = [
        {"baseline": "compile", "clock": "device", "speedup": 1.25, "reason": ""},
        {"baseline": "max-autotune", "clock": "device", "speedup": 0.0, "reason": "it does not run"},
    ]
    data = page_data(HEADER, [row(measured(2.0, 1.9, 2.1, speedups=speedups), 2.0), *ROWS[3:5]])
    first = data["rows"][0]
    assert (first["compile"], first["max_autotune"], first["kernelbench_speedup"]) == (1.25, None, 1.5)
    assert "".join(text for _, text in first["source"]) == "x = 1"
    (family,) = data["families"]
    assert (family["name"], family["example"], family["reason"]) == (
        "input_mutation",
        2,
        "it writes to its inputs",
    )


def test_what_others_wrote_is_no_markup_on_the_page(tmp_path: Path) -> None:
    hostile = row(line("wrong_answer", reason=HOSTILE, feedback=HOSTILE), name=HOSTILE, source=HOSTILE)
    page = write_audit(HEADER, [hostile], tmp_path / "audit.html").read_text()
    assert "window.pwned = 1</script>" not in page
    assert data_in(page)["rows"][0]["name"] == HOSTILE
