"""Speedups over other baselines, from those of both over eager."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Audit, Measured, Outcome, Speedup
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.sandbox.memory import KilledForMemory
from kbopt.evaluation.server.baselines import Baselines, compared, ranked
from kbopt.evaluation.server.devices import Device
from kbopt.leanbuild.toolchain import detect


def over(
    baseline: str, ratio: float, spread: float = 1.1, clock: str = "device", reason: str = ""
) -> Speedup:
    return Speedup(
        baseline=baseline,
        clock=clock,
        baseline_ms=ratio,
        kernel_ms=1.0,
        speedup=ratio,
        interval=(ratio / spread, ratio * spread),
        reason=reason,
    )


def kernel(*speedups: Speedup) -> Measured:
    return Measured(
        kernel_ms=(1.0,),
        reference_ms=(6.0,),
        speedup=6.0,
        speedup_ci=(5.0, 7.0),
        native_ms=1.0,
        wall_ms=1.0,
        audit=Audit(custom_kernel=True),
        speedups=speedups,
    )


def test_a_speedup_over_a_baseline_is_the_quotient_of_both_over_eager() -> None:
    compile_ms = Speedup(
        baseline="compile",
        clock="device",
        baseline_ms=6.0,
        kernel_ms=3.0,
        speedup=2.0,
        interval=(2 / 1.1, 2 * 1.1),
    )
    found = compared(kernel(over("eager", 6.0)), [compile_ms]).over("compile")
    assert found is not None
    assert found.speedup == pytest.approx(3.0)
    assert found.baseline_ms == pytest.approx(3.0)
    spread = 1.1 ** (2**0.5)
    assert found.interval == pytest.approx((3.0 / spread, 3.0 * spread))


def test_a_baseline_that_does_not_run_keeps_its_reason() -> None:
    found = compared(kernel(over("eager", 6.0)), [over("cuda-graph", 0.0, reason="none here")]).over(
        "cuda-graph"
    )
    assert found is not None
    assert found.reason == "none here"


@pytest.mark.parametrize(
    ("baseline", "clock", "speedup"),
    [
        ("eager", "device", 6.0),
        ("compile", "device", 3.0),
        ("best", "device", 2.0),
        ("eager", "latency", 4.0),
    ],
)
def test_the_protocol_says_which_speedup_ranks(baseline: str, clock: str, speedup: float) -> None:
    judged = kernel(
        over("eager", 6.0),
        over("eager", 4.0, clock="latency"),
        over("compile", 3.0),
        over("max-autotune", 2.0),
    )
    assert ranked(judged, EvalProtocol(baseline=baseline, clock=clock)).speedup == speedup


def test_eager_ranks_where_the_baseline_asked_for_does_not_run() -> None:
    judged = kernel(over("eager", 6.0), over("compile", 0.0, reason="no compiler"))
    assert ranked(judged, EvalProtocol(baseline="compile")).speedup == 6.0


def baselines_of(folder: Path, *answers: Outcome | Exception) -> Baselines:
    """Whose device gives `answers`, one for each baseline that it is asked for."""
    left: Iterator[Outcome | Exception] = iter(answers)

    def judge(_: EvalRequest, in_pairs: bool) -> Outcome:
        assert not in_pairs
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    device = Device(torch="cpu", name="", hardware="", toolchain=detect(arch=""))
    return Baselines(device, folder, judge)


def asked(
    baseline: Literal["eager", "compile"] = "eager", clock: Literal["device", "latency"] = "device"
) -> EvalRequest:
    task = Task(name="t", source="class Model: ...")
    protocol = EvalProtocol(baseline=baseline, clock=clock)
    return EvalRequest(task=task, source="", protocol=protocol, baselines=True)


OTHER = kernel(over("eager", 3.0))
"""What max-autotune, which is asked for after compile, is measured at."""


def test_max_autotune_runs_on_a_cpu_and_a_cuda_graph_does_not(tmp_path: Path) -> None:
    found = baselines_of(tmp_path, kernel(over("eager", 2.0)), OTHER).of(asked())
    assert [(one.baseline, one.speedup) for one in found if not one.reason] == [
        ("compile", 2.0),
        ("max-autotune", 3.0),
    ]
    assert {one.reason for one in found if one.baseline == "cuda-graph"} == {"CUDA graphs are for GPUs"}


def test_a_baseline_that_a_machine_lost_has_a_reason_and_is_measured_the_next_time(tmp_path: Path) -> None:
    found = baselines_of(tmp_path, *(InfraError("the process ended"), OTHER, kernel(over("eager", 2.0))))
    assert found.of(asked())[0].reason == "the process ended"
    assert found.of(asked())[0].speedup == 2.0
    assert found.of(asked())[0].speedup == 2.0  # kept


def test_a_baseline_killed_for_memory_while_alone_has_a_reason_unless_it_ranks(tmp_path: Path) -> None:
    killed = KilledForMemory("torch.compile", of_judge=False)
    with pytest.raises(KilledForMemory):
        baselines_of(tmp_path, killed).of(asked())
    assert (
        "torch.compile was killed" in baselines_of(tmp_path, killed, OTHER).of(asked(), alone=True)[0].reason
    )
    with pytest.raises(KilledForMemory):
        baselines_of(tmp_path, killed).of(asked("compile"), alone=True)


def test_equal_code_is_measured_once_a_service_in_pairs_and_by_the_clock_that_ranks(tmp_path: Path) -> None:
    asked_for: list[tuple[str, bool]] = []

    def judge(request: EvalRequest, in_pairs: bool) -> Outcome:
        asked_for.append((request.source, in_pairs))
        return kernel(over("eager", 1.0), over("eager", 1.1, clock="latency"))

    device = Device(torch="cpu", name="", hardware="", toolchain=detect(arch=""))
    baselines = Baselines(device, tmp_path, judge)
    found = [baselines.equal_code(request) for request in (asked(), asked(clock="latency"), asked())]
    assert [(one.baseline, one.clock) for one in found] == [
        ("equal code", "device"),
        ("equal code", "latency"),
        ("equal code", "device"),
    ]
    assert asked_for == [(asked().task.equal_code, True)]
    assert not list(tmp_path.iterdir())
