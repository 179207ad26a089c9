"""What a candidate's author is told."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from kbopt.core.evaluations import KernelBenchVerdict
from kbopt.core.outcomes import Family, Outcome, Rejected, Roofline, Speedup, WorkloadTimes, WrongAnswer
from kbopt.evaluation.judge.one_workload import kernels_notes
from kbopt.evaluation.server.feedback import for_outcome
from kbopt.evaluation.worker_messages import KernelTime
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


def test_a_kernel_that_passes_the_floor_is_told_that_this_is_no_bound() -> None:
    limits = Roofline(size_bytes=10**9, operations=1, floor_ms=2.957, share=1.0, reference_ops_ms=0.0)
    told = for_outcome(replace(measured(1.5), roofline=limits))
    assert "once takes 2.957 ms at the device's bandwidth: the kernel takes less, because a cache" in told
    assert "%" not in told.splitlines()[1]


def test_the_kernels_of_a_call_are_told_with_how_they_were_timed() -> None:
    kernels = [KernelTime(name="rows", calls=1, us=123.3), KernelTime(name="sum", calls=2, us=41.1)]
    (note,) = kernels_notes(kernels)
    assert note.startswith("Kernels of a call: rows 75% (1x, 123.3 us); sum 25% (2x, 41.1 us). ")
    assert "with a warm L2: compare them with each other alone, not with timed calls" in note
    assert kernels_notes([]) == []


def verdict(kernel_ms: float = 0.0, reference_ms: float = 0.0, **metadata: object) -> KernelBenchVerdict:
    """KernelBench's verdict: correct with these times, or else the `metadata` of one that is not."""
    if metadata:
        return KernelBenchVerdict(compiled=True, correctness=False, metadata=metadata)
    return KernelBenchVerdict(
        compiled=True, correctness=True, metadata={}, runtime=kernel_ms, ref_runtime=reference_ms
    )


EAGER = Speedup(baseline="eager", clock="device", kernel_ms=1.0, baseline_ms=1.5, speedup=1.5)
FASTER = replace(measured(1.5), speedups=(EAGER,))
"""1 ms instead of 1.5 ms."""
NOT_FOUND = WrongAnswer(reason="output 0 at index [0]: expected 1, got 2")
MISMATCH = verdict(correctness_issue="Output mismatch", correctness_trials="(0 / 5)")


@pytest.mark.parametrize(
    ("outcome", "theirs", "said"),
    [
        (FASTER, MISMATCH, "not correct: Output mismatch (0 / 5). It constructs the kernel under"),
        (FASTER, verdict(runtime_error="no\nsuch luck."), "not correct: no such luck. It constructs"),
        (FASTER, verdict(hardware="cpu"), "not correct: its process did not say why. It"),
        (FASTER, verdict(), "is that this is correct, without a time"),
        (
            FASTER,
            verdict(0.792, 3.0),
            "is 3.79x: it takes 0.792 ms for the kernel in place of 1 ms, and 3 ms",
        ),
        (NOT_FOUND, verdict(2.0, 5.0), "is that this is correct and 2.5x. It compares a few answers"),
        (NOT_FOUND, verdict(), "is that this is correct. It compares a few answers"),
        (
            Rejected(reason="r", family="reused_output"),
            verdict(2.0, 5.0),
            "It does not look for reused_output.",
        ),
    ],
)
def test_two_verdicts_that_differ_are_explained_in_a_line(
    outcome: Outcome, theirs: KernelBenchVerdict, said: str
) -> None:
    (line,) = [line for line in for_outcome(outcome, verdict=theirs).splitlines() if "KernelBench" in line]
    assert line.startswith("KernelBench's own verdict is ")
    assert said in line
    assert "-0" not in line


@pytest.mark.parametrize(
    ("outcome", "theirs"),
    [
        (FASTER, verdict(1.0, 1.6)),
        (NOT_FOUND, MISMATCH),
        (Rejected(reason="r", family="torch_ops"), MISMATCH),
    ],
)
def test_two_verdicts_that_agree_are_not_explained(outcome: Outcome, theirs: KernelBenchVerdict) -> None:
    assert "KernelBench" not in for_outcome(outcome, verdict=theirs)


@pytest.mark.parametrize(
    ("reference_ms", "said"),
    [
        (1.5, None),  # The mean of both workloads.
        (3.0, "KernelBench's own verdict is 3x: it is of the workload small alone."),
        (
            8.0,
            "is 8x, of the workload small alone: it takes 1 ms for the kernel in place of 0.5 ms, and 8 ms",
        ),
    ],
)
def test_of_several_workloads_kernelbenchs_times_are_of_the_first(
    reference_ms: float, said: str | None
) -> None:
    small, large = (
        WorkloadTimes(
            name=name,
            role=role,
            weight=1.0,
            kernel_ms=0.5,
            reference_ms=0.5 * speedup,
            speedup=speedup,
            interval=(speedup, speedup),
        )
        for name, role, speedup in (("small", "shown", 3.0), ("large", "hidden", 0.75))
    )
    told = for_outcome(replace(FASTER, workloads=(small, large)), verdict=verdict(1.0, reference_ms))
    assert ("KernelBench" in told) is (said is not None)
    assert said is None or said in told
