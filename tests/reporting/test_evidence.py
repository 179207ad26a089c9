"""The reasons to believe a speedup agree with each other and say what each figure is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kbopt.core.evaluations import KernelBenchVerdict, Result
from kbopt.core.outcomes import Audit, Measured, Roofline, Speedup, WorkloadTimes
from kbopt.core.proposals import Trial
from kbopt.reporting.evidence import Belief, evidence, roofline_of
from kbopt.reporting.history import fold
from tests.support.journals import entries

ROOFLINE = Roofline(size_bytes=1, operations=1, floor_ms=0.21, share=0.6, reference_ops_ms=0.05)
MEASURED = Measured(
    kernel_ms=(0.42, 0.42, 0.43),
    reference_ms=(3.0, 3.1, 3.2),
    speedup=7.4,
    speedup_ci=(7.0, 7.8),
    native_ms=0.42,
    wall_ms=0.42,
    audit=Audit(custom_kernel=True, notes=("1 kernel launched",)),
    roofline=ROOFLINE,
    speedups=(
        Speedup(
            baseline="compile",
            clock="device",
            baseline_ms=1.26,
            kernel_ms=0.42,
            speedup=3.0,
            interval=(2.9, 3.1),
        ),
        Speedup(baseline="cuda-graph", clock="device", reason="CUDA graphs are for GPUs"),
        Speedup(baseline="cuda-graph", clock="latency", reason="CUDA graphs are for GPUs"),
    ),
)
VERDICT = KernelBenchVerdict(
    compiled=True,
    correctness=True,
    metadata={},
    runtime=0.45,
    runtime_stats={},
    ref_runtime=3.2,
    ref_runtime_stats={},
)


@pytest.fixture(scope="module")
def node():
    return fold(entries(60)).best


def told(
    node, outcome: Measured = MEASURED, verdict: KernelBenchVerdict | None = VERDICT
) -> dict[str, Belief]:
    result: Result = replace(node.results[0], outcome=outcome, kernelbench=verdict)
    return {belief.name: belief for belief in evidence(Trial(candidate=node.candidate, results=(result,)))}


def test_one_time_is_the_headline_and_every_other_says_what_it_is(node):
    found = told(node)
    assert found["time"].text.startswith("A call takes 0.42 ms instead of 3.1 ms")
    assert "in 1 measurement." in found["time"].text
    assert (
        found["estimated floor"].text
        == "By estimate this device needs at least 0.21 ms, 50% of the kernel's time. The reference's own "
        "operations need 0.05 ms at its arithmetic's peak."
    )
    assert (
        found["over compile, device"].text
        == "3.00x [2.90, 3.10] over compile by the device's work: 0.42 ms instead of 1.26 ms."
    )
    assert found["over cuda-graph"].text == "No cuda-graph baseline: CUDA graphs are for GPUs."
    assert "0.45 ms instead of 3.2 ms, every call on the same inputs" in found["KernelBench"].text


def test_a_baseline_that_does_not_run_is_named_once(node):
    result = replace(node.results[0], outcome=MEASURED, kernelbench=VERDICT)
    names = [belief.name for belief in evidence(Trial(candidate=node.candidate, results=(result,)))]
    assert names.count("over cuda-graph") == 1


EQUAL = Speedup(baseline="equal code", clock="device", speedup=1.02, interval=(0.95, 1.09))


@pytest.mark.parametrize(
    ("found", "good", "said"),
    [
        (
            EQUAL,
            True,
            "This machine calls equal code, the task's own model as a candidate, 1.02x [0.95, 1.09].",
        ),
        (
            replace(EQUAL, speedup=1.3, interval=(1.2, 1.4)),
            False,
            "1.30x [1.20, 1.40]. That leaves out 1: other",
        ),
        (
            replace(EQUAL, reason="timed_out: no answer"),
            None,
            "Equal code was not measured: timed_out: no answer.",
        ),
    ],
)
def test_equal_code_says_what_the_machines_figures_are_worth(
    node, found: Speedup, good: bool | None, said: str
) -> None:
    belief = told(node, replace(MEASURED, equal_code=found))["equal code"]
    assert said in belief.text
    assert belief.good is good
    assert "equal code" not in told(node)


def on(name: str, role: str, speedup: float) -> WorkloadTimes:
    interval = (0.9 * speedup, 1.1 * speedup)
    return WorkloadTimes(
        name=name,
        role=role,
        weight=1.0,
        kernel_ms=1.0,
        reference_ms=speedup,
        speedup=speedup,
        interval=interval,
    )


def test_the_worst_workload_and_the_gap_to_those_held_out_are_told(node):
    seen = (on("wide", "shown", 4.0), on("odd", "hidden", 1.0))

    same, less = (
        told(node, replace(MEASURED, workloads=(*seen, on("last", "held_out", speedup))))
        for speedup in (1.9, 1.0)
    )

    assert "wide (shown) 4.00x" in same["workloads"].text
    assert same["workloads"].text.endswith("The worst is odd.")
    assert not same["workloads"].good
    assert same["held out"].good
    assert not less["held out"].good
    assert less["held out"].text.endswith("it is 1.00x over eager, on the others 2.00x: 0.50 times as much.")
    assert "workloads" not in told(node)


def test_two_figures_are_compared_only_where_the_second_clock_found_something(node):
    nothing = told(node)["second clock"]
    assert nothing.good
    assert nothing.text.endswith("said 0.42 ms; the judge's clocks found nothing more.")
    hidden = told(node, replace(MEASURED, native_ms=0.35))["second clock"]
    assert not hidden.good
    assert "said 0.35 ms; the judge's clocks found 0.07 ms more, which the time above includes" in hidden.text


def test_on_a_cpu_there_is_no_second_clock_to_compare(node):
    assert "second clock" not in told(node, replace(MEASURED, native_ms=None))


@pytest.mark.parametrize(("reference_ops_ms", "shown"), [(1.493e-11, False), (0.05, True), (0.5, True)])
def test_operations_are_told_where_they_matter(node, reference_ops_ms: float, shown: bool):
    roofline = replace(MEASURED.roofline, reference_ops_ms=reference_ops_ms)
    text = told(node, replace(MEASURED, roofline=roofline))["estimated floor"].text
    assert ("operations need" in text) is shown
    assert ("the kernel does fewer" in text) is (reference_ops_ms > 0.42)


def test_a_floor_that_the_kernel_passes_is_no_share_in_a_table(node) -> None:
    def floor_of(*floors_ms: float) -> float | None:
        results = tuple(
            replace(node.results[0], outcome=replace(MEASURED, roofline=replace(ROOFLINE, floor_ms=floor_ms)))
            for floor_ms in floors_ms
        )
        found = roofline_of(Trial(candidate=node.candidate, results=results))
        return found.floor_ms if found else None

    assert floor_of(0.21) == 0.21
    assert floor_of(0.21, 0.5) == 0.21
    assert floor_of(0.5) is None


@pytest.mark.parametrize(("floor_ms", "share"), [(0.5, 1.19), (8.3, 19.83), (0.21, 0.5)])
def test_no_share_above_1_is_shown(node, floor_ms: float, share: float):
    roofline = Roofline(size_bytes=1, operations=1, floor_ms=floor_ms, share=share, reference_ops_ms=0.05)
    text = told(node, replace(MEASURED, roofline=roofline))["estimated floor"].text
    shares = [int(percent) for percent in re.findall(r"(\d+)\s*%", text)]
    assert all(one <= 100 for one in shares)
    assert ("estimate says nothing" in text) == (floor_ms > 0.42)


@pytest.mark.parametrize(
    ("changes", "said", "cast"),
    [
        ({"correctness": False, "runtime": -1.0, "ref_runtime": -1.0}, "not correct.", True),
        (
            {
                "correctness": False,
                "runtime": -1.0,
                "metadata": {"runtime_error": "Expected tensor for argument #1 'indices' to have Long\nmore"},
            },
            "not correct. Expected tensor for argument #1 'indices' to have Long.",
            True,
        ),
        (
            {"correctness": False, "runtime": -1.0, "metadata": {"correctness_issue": "Output mismatch"}},
            "not correct. Output mismatch.",
            True,
        ),
        ({"runtime": -1.0}, "correct, not timed.", False),
        ({"ref_runtime": -1.0}, "correct, not timed.", False),
    ],
)
def test_a_time_that_kernelbench_did_not_take_is_no_time(
    node, changes: dict[str, object], said: str, cast: bool
):
    belief = told(node, verdict=replace(VERDICT, **changes))["KernelBench"]
    assert "-1" not in belief.text
    assert belief.text.startswith(f"By KernelBench's own protocol: {said}")
    assert ("casts every input to floating point" in belief.text) == cast


@pytest.mark.parametrize(
    ("interval", "good", "meaning"),
    [
        ((1.02, 1.1), True, "lies above 1."),
        ((0.9, 1.1), False, "holds 1: it may be no faster."),
        ((0.5, 0.9), False, "lies below 1: it is slower than eager PyTorch."),
    ],
)
def test_the_interval_says_whether_it_is_faster(node, interval, good: bool, meaning: str):
    belief = told(node, replace(MEASURED, speedup_ci=interval))["interval"]
    assert belief.good == good
    assert belief.text.endswith(meaning)


def test_a_note_that_speaks_against_the_measurement_is_marked(node):
    def marked(note: str) -> bool | None:
        return told(node, replace(MEASURED, audit=Audit(custom_kernel=True, notes=(note,))))["note"].good

    assert marked("No sandbox: the candidate could read your files.") is False
    assert marked("1 kernel launched") is None
