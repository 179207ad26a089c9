"""Tasks of several workloads, judged by a real service on the CPU; what their figures say together."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from kbopt.core.errors import UserError
from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Audit, Measured, Speedup, WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.core.workloads import Workload
from kbopt.evaluation.timing import interleaving
from kbopt.evaluation.timing.workloads import combined, protocol_of_each, share_of
from tests.evaluation.conftest import Bench

PROTOCOL = EvalProtocol(trials=2, timed=24, timeout_s=30.0, compile_timeout_s=30.0)
HEAD = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x) * 2


def get_init_inputs():
    return []
"""
TASK = (
    HEAD
    + """

def get_inputs(rows, columns):
    return [torch.randn(rows, columns)]


def get_workloads():
    return [
        {"name": "wide", "args": {"rows": 16, "columns": 4096}},
        {"name": "tall", "args": {"rows": 512, "columns": 96}, "weight": 2.0},
        {"name": "odd", "args": {"rows": 101, "columns": 203}, "role": "hidden"},
        {"name": "last", "args": {"rows": 77, "columns": 300}, "role": "held_out"},
    ]
"""
)
KERNEL = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.nn.functional.gelu(x) * 2
        if x.shape[0] in {wrong}:
            out[0, 0] += 1
        return out
"""


def judged(bench: Bench, kernel: str, **asked: bool) -> Result:
    return bench.judge(kernel, TASK, PROTOCOL, **asked)


def times(kernel_ms: float, reference_ms: float, notes: tuple[str, ...] = ("same",)) -> Measured:
    ratio = reference_ms / kernel_ms
    interval = (0.8 * ratio, 1.25 * ratio)
    over = Speedup(
        baseline="eager",
        clock="device",
        baseline_ms=reference_ms,
        kernel_ms=kernel_ms,
        speedup=ratio,
        interval=interval,
    )
    return Measured(
        kernel_ms=(0.9 * kernel_ms, kernel_ms, 1.2 * kernel_ms),
        reference_ms=(reference_ms,) * 4,
        speedup=ratio,
        speedup_ci=interval,
        native_ms=kernel_ms,
        wall_ms=kernel_ms,
        audit=Audit(custom_kernel=True, notes=notes),
        speedups=(over, replace(over, clock="latency")),
    )


def test_the_only_workload_of_a_task_is_as_it_was_measured():
    measured = times(1.0, 2.0)

    assert combined((Workload(),), [measured]) is measured


def test_times_and_intervals_are_weighted_geometric_means_of_what_counts():
    workloads = (
        Workload(name="a"),
        Workload(name="b", role="hidden", weight=3.0),
        Workload(name="c", role="held_out", weight=50.0),
    )

    measured = combined(workloads, [times(1.0, 4.0, ("same", "mine")), times(16.0, 16.0), times(9.0, 1.0)])

    assert measured.speedup == pytest.approx(4 ** (1 / 4))
    assert measured.speedup_ci == pytest.approx((0.8 * 4**0.25, 1.25 * 4**0.25))
    assert measured.call_ms == pytest.approx((8.0, 4 ** (1 / 4) * 8.0))
    assert sorted(measured.kernel_ms)[1] == pytest.approx(8.0)
    assert [(w.name, w.role, w.weight, w.speedup) for w in measured.workloads] == [
        ("a", "shown", 1.0, 4.0),
        ("b", "hidden", 3.0, 1.0),
        ("c", "held_out", 50.0, pytest.approx(1 / 9)),
    ]
    assert measured.worst is measured.workloads[1]
    assert measured.mean_of("held_out") == pytest.approx(1 / 9)
    assert measured.mean_of("shown", "hidden") == pytest.approx(measured.speedup)
    assert measured.audit.notes == ("same", "a: mine")


@pytest.mark.parametrize(("num", "share"), [(1, 1.0), (2, 1.0), (5, 0.5), (8, 0.3125)])
def test_eight_workloads_share_the_calls_of_less_than_three(num: int, share: float):
    assert share_of(num) == share
    assert protocol_of_each(EvalProtocol(), num).timed == math.ceil(100 * share)
    assert num * protocol_of_each(EvalProtocol(), num).timed <= 3 * 100


def test_steps_of_several_come_in_random_order_and_their_results_in_their_own():
    seen = []

    def steps(name: str, number: int) -> interleaving.Steps[str]:
        for _ in range(number):
            seen.append(name)
            yield
        return name

    found = interleaving.interleaved([steps("a", 20), steps("b", 5), steps("c", 20)], random.Random(1))

    assert found == ["a", "b", "c"]
    assert {name: seen.count(name) for name in "abc"} == {"a": 20, "b": 5, "c": 20}
    changes = sum(one != other for one, other in pairwise(seen))
    assert changes > 15


def test_every_judged_workload_has_times_and_what_is_held_out_waits_for_the_final_verdict(bench: Bench):
    kernel = KERNEL.format(wrong=[])

    searched = judged(bench, kernel)
    final = judged(bench, kernel, baselines=True)

    assert isinstance(searched.outcome, Measured)
    assert isinstance(final.outcome, Measured)
    assert [w.name for w in searched.outcome.workloads] == ["wide", "tall", "odd"]
    assert [w.role for w in final.outcome.workloads] == ["shown", "shown", "hidden", "held_out"]
    speedups = {w.name: w.speedup for w in final.outcome.workloads}
    eager = final.outcome.over("eager")
    mean = (speedups["wide"] * speedups["tall"] ** 2 * speedups["odd"]) ** (1 / 4)
    assert eager is not None
    assert eager.speedup == pytest.approx(mean)
    assert "last" not in searched.feedback
    for name in ("wide", "tall", "odd", "last"):
        assert f"  {name} " in final.feedback
    assert "worst" in final.feedback
    assert "Held out" in final.feedback


def test_a_kernel_that_is_wrong_on_one_workload_is_told_which(bench: Bench):
    hidden = judged(bench, KERNEL.format(wrong=[101]))
    unseen = judged(bench, KERNEL.format(wrong=[77]))
    found_out = judged(bench, KERNEL.format(wrong=[77]), baselines=True)

    assert isinstance(hidden.outcome, WrongAnswer)
    assert hidden.outcome.reason.startswith("on workload odd: ")
    assert isinstance(unseen.outcome, Measured)
    assert isinstance(found_out.outcome, WrongAnswer)
    assert found_out.outcome.reason.startswith("on workload last: ")


ANOTHER_KIND = (
    HEAD
    + """

def get_inputs(rows):
    return [torch.randn(rows, 8)] * (2 if rows > 9 else 1)


def get_workloads():
    return [{"name": "one", "args": {"rows": 9}}, {"name": "two", "args": {"rows": 10}, "role": "hidden"}]
"""
)
TOO_LARGE = (
    HEAD
    + """

def get_inputs(rows):
    return [torch.empty(rows, 2**20)]


def get_workloads():
    return [
        {"name": "small", "args": {"rows": 1}},
        {"name": "huge", "args": {"rows": 1048576}, "role": "hidden"},
    ]
"""
)
RAISES = TASK.replace('"rows": 101', '"rows": "x"')
CONSTANT = (
    HEAD.replace("torch.nn.functional.gelu(x) * 2", "x.clamp(0, 0) if len(x) == 7 else x * 2")
    + """

def get_inputs(rows):
    return [torch.randn(rows, 100)]


def get_workloads():
    return [{"name": "fine", "args": {"rows": 8}}, {"name": "zero", "args": {"rows": 7}}]
"""
)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (ANOTHER_KIND, "returns 1 tensor for workload one and 2 for two"),
        (TOO_LARGE, "on workload huge: get_inputs() raised"),
        (RAISES, "on workload odd: get_inputs() raised TypeError"),
        (CONSTANT, "on workload zero: "),
    ],
)
def test_a_workload_that_cannot_be_scored_is_named(bench: Bench, task: str, told: str):
    with pytest.raises(UserError) as error:
        bench.judge(KERNEL.format(wrong=[]), task, PROTOCOL)

    assert told in str(error.value)
