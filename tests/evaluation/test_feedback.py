"""What a candidate's author is told."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from kbopt.core.outcomes import Family, Rejected, Roofline
from kbopt.evaluation.judge.one_workload import kernels_notes
from kbopt.evaluation.messages import KernelTime
from kbopt.evaluation.server.feedback import for_outcome
from tests.support.llm_briefs import measured

MANUAL = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.parametrize("family", get_args(Family))
def test_each_reason_of_a_rejection_has_a_remedy_and_is_in_the_manual(family: Family) -> None:
    told = for_outcome(Rejected(reason="what was seen", family=family))
    assert told.startswith(f"Rejected as {family}: what was seen. ")
    assert len(told.split(". ", 1)[1]) > 20
    assert family in MANUAL.read_text()


@pytest.mark.parametrize(
    ("reference_ops_ms", "of_operations", "of_the_limit", "of_fewer"),
    [
        (1.493e-11, False, False, False),
        (0.0024, False, False, False),
        (0.0026, True, False, False),
        (0.75, True, True, False),
        (15.0, True, False, True),  # The kernel takes 1 ms.
    ],
)
def test_operations_are_told_where_they_matter_and_where_they_are_the_limit(
    reference_ops_ms: float, of_operations: bool, of_the_limit: bool, of_fewer: bool
) -> None:
    limits = Roofline(
        size_bytes=10**9, operations=10**9, floor_ms=0.25, share=0.25, reference_ops_ms=reference_ops_ms
    )
    told = for_outcome(replace(measured(1.5), roofline=limits))

    assert "1000 MB once takes 0.25 ms at the device's bandwidth: the kernel reaches 25% of that." in told
    assert (f"1000 million operations need {reference_ops_ms:.4g} ms" in told) is of_operations
    assert ("operations" in told) is of_operations
    assert ("the kernel is faster, so it does fewer operations or cheaper ones." in told) is of_fewer
    assert ("a better algorithm or a split" in told) is (of_operations and not of_fewer)
    assert ("What limits it is arithmetic, not bytes." in told) is of_the_limit


def test_the_kernels_of_a_call_are_told_with_how_they_were_timed() -> None:
    kernels = [KernelTime(name="rows", calls=1, us=123.3), KernelTime(name="sum", calls=2, us=41.1)]
    (note,) = kernels_notes(kernels)
    assert note.startswith("Kernels of a call: rows 75% (1x, 123.3 us); sum 25% (2x, 41.1 us). ")
    assert "with a warm L2: compare them with each other alone, not with timed calls" in note
    assert kernels_notes([]) == []
