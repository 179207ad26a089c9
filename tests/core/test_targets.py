"""When a kernel is good enough for a search to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbopt.core.outcomes import Measured, Roofline, WorkloadTimes
from kbopt.core.proposals import Trial
from kbopt.core.settings import SearchSettings
from kbopt.core.targets import reached, sure_share
from tests.support.llm_briefs import failed_trial, measured, trial


def at(share: float, *, low: float = 2.85) -> Measured:
    """Three times as fast as the reference, with an interval from `low`, at this share of the floor by bytes.

    The reference's operations would need ten times as long as the kernel takes.
    """
    roofline = Roofline(size_bytes=1, operations=1, floor_ms=share, share=share, reference_ops_ms=10.0)
    return replace(measured(3.0), speedup_ci=(low, 3.2), roofline=roofline)


def of(*outcomes: Measured) -> Trial:
    results = tuple(trial(outcome=outcome).results[0] for outcome in outcomes)
    return replace(trial(), results=results)


def test_the_share_is_the_one_at_the_slow_end_of_the_interval() -> None:
    assert sure_share(of(at(0.8))) == pytest.approx(0.76)
    assert sure_share(of(at(0.8), at(0.8, low=1.5))) == pytest.approx((0.76 + 0.4) / 2)


def test_a_failed_measurement_or_an_unknown_floor_reaches_nothing() -> None:
    assert sure_share(of(measured(3.0))) == 0.0
    assert sure_share(failed_trial("f")) == 0.0
    both = replace(of(at(0.9)), results=(*of(at(0.9)).results, *failed_trial("f").results))
    assert sure_share(both) == 0.0


@pytest.mark.parametrize(("share", "ends"), [(0.99, True), (0.94, False), (0.05, False)])
def test_only_the_floor_by_bytes_counts(share: float, ends: bool) -> None:
    """A diagonal product as a full one: the operations' floor is passed long before the kernel is good."""
    found = reached(of(at(share)), SearchSettings(target_roofline=0.9))
    assert found == ("the best kernel is at 90% of its roofline or above it" if ends else None)


def test_a_floor_that_the_kernel_passes_ends_no_search() -> None:
    """Its share is told as at most 1, as on a CPU whose bandwidth was measured while others used it."""
    passed = replace(at(1.0), kernel_ms=(0.5,))
    assert reached(of(passed), SearchSettings(target_roofline=0.9)) is None
    assert reached(of(at(1.0), passed), SearchSettings(target_roofline=0.9)) is None


def test_a_floor_that_is_passed_on_one_workload_ends_no_search() -> None:
    def times(kernel_ms: float) -> WorkloadTimes:
        return WorkloadTimes(
            name="w",
            role="shown",
            weight=1.0,
            kernel_ms=kernel_ms,
            reference_ms=3.0,
            speedup=3.0,
            interval=(2.9, 3.1),
            floor_ms=1.0,
        )

    settings = SearchSettings(target_roofline=0.9)
    assert reached(of(replace(at(1.0), workloads=(times(1.0), times(1.1)))), settings) is not None
    assert reached(of(replace(at(1.0), workloads=(times(1.0), times(0.9)))), settings) is None


def test_without_a_target_nothing_is_reached() -> None:
    assert reached(of(at(1.0)), SearchSettings()) is None
    assert reached(of(at(0.1)), SearchSettings(target_speedup=2.8, target_roofline=0.9)) is not None
