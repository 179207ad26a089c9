"""Which blocks a session asks for, of models whose times are given."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.reference import Draw
from kbopt.evaluation.timing import intervals, samples
from kbopt.evaluation.timing.interleaving import Steps, interleaved
from kbopt.evaluation.timing.schedule import Sessions

OVERHEAD = samples.Overhead(fixed_ms=0.2, per_call_ms=0.01)


def finish(steps: Steps[samples.Session]) -> samples.Session:
    return interleaved([steps], random.Random(0))[0]


class FakeModels:
    """Calls of `reference_ms` and `kernel_ms`, of which the candidate says `said_ms`; what it was asked for.

    The clock moves by what blocks take, and not otherwise.
    """

    def __init__(self, reference_ms: float, kernel_ms: float, said_ms: float | None = None) -> None:
        self.reference_ms = reference_ms
        self.kernel_ms = kernel_ms
        self.said_ms = kernel_ms if said_ms is None else said_ms
        self.late_from = math.inf  # Calls in a batch of the candidate's.
        self.waiting_ms = 0.0  # That a batch of a call takes longer if both models wait in it.
        self.left_running_ms = 0.0
        self.disturbed = [
            0.0
        ]  # Milliseconds that others add to each of the candidate's batches; the last one stays.
        self.most_calls = 0
        self.num_draws = 0
        self.probes: list[tuple[int, int]] = []
        self.asked: list[tuple[str, tuple[int, ...], int]] = []
        self.clock_s = 0.0

    def draw(self) -> Draw:
        self.num_draws += 1
        return Draw(skeleton=[], tensors=(torch.tensor(self.num_draws),))

    def cached_ms(self) -> float:
        return 0.0

    def reference_block(self, draws: list[Draw]) -> samples.Block:
        return self._block("reference", draws, self.reference_ms, self.reference_ms)

    def empty_block(self, draws: list[Draw]) -> samples.Block:
        return self._block("empty", draws, 0.0, 0.0)

    def reference_batch(self, draws: list[Draw]) -> samples.Block:
        taken_ms = self.reference_ms + self.waiting_ms
        block = self._block("reference batch", draws, taken_ms, self.reference_ms)
        return replace(block, is_late=self.waiting_ms > 0)

    def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block:
        """With `marked` its own clock, which takes time itself."""
        if marked:
            return self._block("marked copies batch", draws, 0.008, 0.002)
        return self._block("copies batch", draws, 0.002, 0.0)

    def candidate_block(self, draws: list[Draw], *, checked: int) -> samples.Block:
        return self._block("candidate", draws, self.kernel_ms, self.said_ms, checked)

    def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block:
        added_ms = self.disturbed.pop(0) if len(self.disturbed) > 1 else self.disturbed[0]
        taken_ms = self.kernel_ms + self.waiting_ms + added_ms
        return self._block("candidate batch", draws, taken_ms, self.said_ms, checked)

    def travelling_probe(self, number: int) -> None:
        """Notes its number, and behind how many blocks it comes."""
        self.probes.append((number, len(self.asked)))

    def of(self, kind: str) -> list[tuple[int, ...]]:
        """The draws of each block of that kind."""
        return [draws for asked, draws, _ in self.asked if asked == kind]

    def _block(
        self, kind: str, draws: list[Draw], call_ms: float, said_ms: float, checked: int = 0
    ) -> samples.Block:
        self.asked.append((kind, tuple(int(draw.tensors[0]) for draw in draws), checked))
        wall_ms = OVERHEAD.of(len(draws)) + len(draws) * call_ms + self.left_running_ms
        self.clock_s += wall_ms / 1000
        is_late = len(draws) >= self.late_from and kind == "candidate batch"
        return samples.Block(
            native_ms=(said_ms,) * len(draws),
            wall_ms=wall_ms,
            cpu_ms=len(draws) * call_ms,
            is_late=is_late,
        )


class Scattering(FakeModels):
    """Every second call of both models takes half as long again."""

    def _block(
        self, kind: str, draws: list[Draw], call_ms: float, said_ms: float, checked: int = 0
    ) -> samples.Block:
        factor = 1.0 + 0.5 * (len(self.of(kind)) % 2)
        return super()._block(kind, draws, factor * call_ms, factor * said_ms, checked)


NewSessions = Callable[..., Sessions]


@pytest.fixture
def new_sessions(monkeypatch: pytest.MonkeyPatch) -> NewSessions:
    def new(
        models: FakeModels, device: str, slots: int = 32, num_workloads: int = 1, **protocol: Any
    ) -> Sessions:
        clock = SimpleNamespace(perf_counter=lambda: models.clock_s)
        monkeypatch.setattr("kbopt.evaluation.timing.schedule.time", clock)
        models.most_calls = slots
        rng = random.Random(5)
        made = Sessions(models, device, EvalProtocol(**protocol), rng, num_workloads)
        made.calibrate()
        made.warm_up()
        models.asked.clear()
        return made

    return new


@pytest.mark.parametrize("said_ms", [0.2, 0.001])
def test_a_reference_that_waits_for_the_device_and_its_own_code_take_the_same(
    new_sessions: NewSessions, said_ms: float
):
    """Whatever the candidate's own clock says."""
    models = FakeModels(0.2, 0.2, said_ms=said_ms)
    models.late_from, models.waiting_ms = 1, 0.11

    seen = finish(new_sessions(models, "cuda", timed=20).run())

    assert seen.waits
    assert seen.reference_waits
    assert seen.kernel_ms == pytest.approx(seen.reference_ms)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_probes_of_both_kinds_travel_among_the_timed_blocks(new_sessions: NewSessions, device: str):
    models = FakeModels(2.0, 1.0)

    finish(new_sessions(models, device, slots=6, timed=100).run())

    numbers, places = zip(*models.probes, strict=True)
    assert list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) >= 5
    assert len(set(places)) > 3
    assert places[0] < places[-1]


def test_a_timing_that_ends_early_has_its_probes_all_the_same(new_sessions: NewSessions):
    models = FakeModels(2000.0, 1000.0)

    finish(new_sessions(models, "cpu", timed=10).run())

    assert {number % 2 for number, _ in models.probes} == {0, 1}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_probe_of_each_kind_comes_after_the_last_timed_call(new_sessions: NewSessions, device: str):
    models = FakeModels(2.0, 1.0)

    finish(new_sessions(models, device, slots=1, timed=100).run())

    timed = max(place for place, (kind, *_) in enumerate(models.asked) if kind == "candidate")
    assert {number % 2 for number, place in models.probes if place > timed} == {0, 1}


@pytest.mark.parametrize(("num_workloads", "warm_ups", "last"), [(1, 3, 2), (2, 3, 2), (8, 2, 1)])
def test_each_of_many_workloads_has_fewer_warm_ups_and_last_probes(
    new_sessions: NewSessions, num_workloads: int, warm_ups: int, last: int
):
    """Eight workloads cost at most three times what one costs."""
    models = FakeModels(2.0, 1.0)
    sessions = new_sessions(models, "cpu", slots=1, num_workloads=num_workloads, timed=60)

    sessions.warm_up()
    assert len(models.of("candidate")) == warm_ups
    finish(sessions.run())

    timed = max(place for place, (kind, *_) in enumerate(models.asked) if kind == "candidate")
    assert sum(place > timed for _, place in models.probes) == last


@pytest.mark.parametrize(
    ("device", "kernel_ms", "lengths"),
    [("cpu", 1.0, [1, 4, 4]), ("cuda", 1.0, [1, 1, 1]), ("cpu", 1000.0, [1]), ("cuda", 1000.0, [1])],
)
def test_short_calls_are_warmed_up_by_more_than_one(
    new_sessions: NewSessions, device: str, kernel_ms: float, lengths: list[int]
):
    models = FakeModels(kernel_ms, kernel_ms)
    sessions = new_sessions(models, device, slots=4)

    sessions.warm_up()

    for kind in ("reference", "candidate"):
        assert [len(draws) for draws in models.of(kind)] == lengths


def test_on_a_cpu_both_models_answer_the_same_draws_in_either_order(new_sessions: NewSessions):
    models = FakeModels(2.0, 1.0)

    session = finish(new_sessions(models, "cpu", slots=6, timed=40).run())

    assert models.of("reference") == models.of("candidate")[:40]
    assert [len(draws) for draws in models.of("candidate")] == [1] * 40 + [2]
    first_of_pair = [kind for kind, _, _ in models.asked if kind != "empty"][::2]
    assert {"reference", "candidate"} == set(first_of_pair[:40])
    assert len(models.of("empty")) == 20
    assert session.clocks_agree
    assert session.kernel_ms == pytest.approx([1.0] * 40)
    assert session.reference_ms == pytest.approx([2.0] * 40)


def test_a_candidate_on_a_cpu_is_not_asked_for_its_times(new_sessions: NewSessions):
    liar = FakeModels(2.0, 1.0, said_ms=0.001)

    session = finish(new_sessions(liar, "cpu", slots=2, timed=40).run())

    assert session.kernel_ms == pytest.approx([1.0] * 40)


def test_no_draw_is_ever_asked_twice(new_sessions: NewSessions):
    models = FakeModels(0.05, 0.02)

    finish(new_sessions(models, "cuda", timed=30).run())

    for kind in ("candidate", "candidate batch"):
        draws = [draw for block in models.of(kind) for draw in block]
        assert len(draws) == len(set(draws)) > 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_slow_kernel_is_timed_until_the_ratio_is_settled(new_sessions: NewSessions, device: str):
    models = FakeModels(20.0, 30.0)

    session = finish(new_sessions(models, device, timed=100).run())

    assert 20 <= len(session.kernel_ms) < 100
    assert len(session.kernel_ms) * 0.05 >= 0.3
    if device == "cuda":
        (note,) = session.notes_on_number(100)
        assert note.endswith(" timed calls instead of 100: their ratio was known to half a percent.")
        assert session.notes_on_number(len(session.kernel_ms)) == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slow_calls_that_scatter_are_timed_for_a_few_seconds_only(new_sessions: NewSessions, device: str):
    models = Scattering(40.0, 50.0)

    session = finish(new_sessions(models, device, timed=100, timeout_s=60.0).run())

    num = len(session.kernel_ms)
    assert 30 < num < 50
    assert num * 0.12 > 4.0
    if device == "cuda":
        (note,) = session.notes_on_number(100)
        assert note == f"{num} timed calls instead of 100: the time for slow calls was up."


def test_calls_are_as_many_as_half_of_the_time_limit_holds(new_sessions: NewSessions):
    models = FakeModels(300.0, 700.0)

    session = finish(new_sessions(models, "cuda", timed=100, timeout_s=30.0).run())

    assert len(session.kernel_ms) == 14  # of one second in fifteen
    (note,) = session.notes_on_number(100)
    assert note == "14 timed calls instead of 100: the time for slow calls was up."


@pytest.mark.parametrize(
    ("kernel_ms", "slots", "length"), [(0.005, 32, 32), (0.1, 32, 20), (0.2, 32, 10), (0.005, 3, 3)]
)
def test_short_kernels_on_a_gpu_are_called_in_longer_batches_too(
    new_sessions: NewSessions, kernel_ms: float, slots: int, length: int
):
    models = FakeModels(0.9, kernel_ms)

    session = finish(new_sessions(models, "cuda", slots=slots, timed=30).run())

    lengths = [1] * 5 + [length] * 5
    assert [len(draws) for draws in models.of("copies batch")] == lengths
    assert models.of("copies batch") == models.of("candidate batch")
    assert models.of("copies batch")[5:] == models.of("reference batch")
    assert sorted(len(draws) for draws in models.of("candidate")) == [1] * 30 + [2]
    assert session.clocks_agree
    assert session.kernel_ms == pytest.approx([kernel_ms] * 30)


@pytest.mark.parametrize(("kernel_ms", "number"), [(0.3, 5), (1.5, 3)])
def test_of_longer_kernels_a_few_batches_of_one_call_are_enough(
    new_sessions: NewSessions, kernel_ms: float, number: int
):
    models = FakeModels(0.3, kernel_ms)

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert [len(draws) for draws in models.of("candidate batch")] == [1] * number
    assert models.of("reference batch") == []
    assert session.kernel_ms == pytest.approx([kernel_ms] * 30)


def test_a_slow_kernel_that_claims_to_be_short_makes_no_longer_batches(new_sessions: NewSessions):
    """32 calls of it, six times in three sessions, would hold the device for minutes."""
    models = FakeModels(0.05, 100.0, said_ms=0.005)

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert [len(draws) for draws in models.of("candidate batch")] == [1] * 5
    assert not session.clocks_agree


def test_every_batch_of_one_call_is_checked(new_sessions: NewSessions):
    """The shortest of them counts."""
    models = FakeModels(0.05, 0.05)

    finish(new_sessions(models, "cuda", timed=30).run())

    checked = [checked for kind, _, checked in models.asked if kind == "candidate batch"]
    assert min(checked) >= 1


def test_a_slow_reference_makes_no_longer_batches(new_sessions: NewSessions):
    models = FakeModels(1.5, 0.2)

    finish(new_sessions(models, "cuda", timed=30).run())

    assert models.of("reference batch") == []
    assert len(models.of("candidate batch")) == 5 + 5


def test_what_a_candidate_says_of_its_calls_is_believed_down_to_what_scatters(new_sessions: NewSessions):
    liar = finish(new_sessions(FakeModels(0.05, 0.05, said_ms=0.005), "cuda", timed=30).run())
    rounding = finish(new_sessions(FakeModels(0.05, 0.05, said_ms=0.04), "cuda", timed=30).run())

    assert not liar.clocks_agree
    for session in (liar, rounding):
        assert session.kernel_ms == pytest.approx([0.05 / 1.02 - 0.004] * 30)
    assert rounding.clocks_agree


def test_one_disturbed_session_does_not_refuse_the_next(new_sessions: NewSessions):
    models = FakeModels(0.05, 0.04)
    three = new_sessions(models, "cuda", timed=30)

    models.kernel_ms, models.said_ms = 0.4, 0.04
    disturbed = finish(three.run())
    models.kernel_ms = 0.04

    assert not disturbed.clocks_agree
    assert finish(three.run()).clocks_agree


def test_batches_that_others_disturbed_charge_an_honest_kernel_nothing(new_sessions: NewSessions):
    models = FakeModels(0.5, 0.5)
    models.disturbed = [0.06] * 12 + [0.0]

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert session.kernel_ms == pytest.approx([0.5] * 30)
    assert len(models.of("candidate batch")) == 13


def test_what_is_in_every_batch_is_charged_after_some_more_of_them(new_sessions: NewSessions):
    models = FakeModels(0.5, 0.56, said_ms=0.5)

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert session.kernel_ms == pytest.approx([0.56 / 1.02 - 0.004] * 30)
    assert len(models.of("candidate batch")) == 25


def test_a_call_that_waits_for_the_device_makes_no_longer_batches(new_sessions: NewSessions):
    models = FakeModels(0.014, 0.074, said_ms=0.014)
    models.late_from = 1

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert session.waits
    assert [len(draws) for draws in models.of("candidate batch")] == [1] * 5
    assert models.of("reference batch") == []
    assert session.clocks_agree
    assert session.kernel_ms == pytest.approx([0.074] * 30)
    assert session.reference_ms == pytest.approx([0.014] * 30)


def test_longer_batches_whose_kernels_fill_the_stream_are_made_shorter(new_sessions: NewSessions):
    models = FakeModels(0.06, 0.06)
    models.late_from = 5

    session = finish(new_sessions(models, "cuda", timed=30).run())

    assert [len(draws) for draws in models.of("candidate batch")] == [1] * 5 + [32] * 5 + [4] * 5
    assert not session.waits
    assert session.kernel_ms == pytest.approx([0.06] * 30)


def test_a_gpu_is_looked_at_before_a_candidate_is_there_and_a_cpu_is_not(new_sessions: NewSessions):
    models = FakeModels(0.5, 0.2)
    new_sessions(models, "cuda", slots=8).calibrate()
    assert len(set(models.of("marked copies batch")[-1])) == 8
    slow = FakeModels(40.0, 0.2)
    new_sessions(slow, "cuda", slots=1).calibrate()
    on_cpu = FakeModels(0.5, 0.2)
    new_sessions(on_cpu, "cpu", slots=6).calibrate()

    assert [len(draws) for draws in models.of("marked copies batch")] == [1] * 3 + [8] * 3
    assert [len(draws) for draws in models.of("copies batch")] == [1] * 3 + [8] * 3
    assert [len(draws) for draws in models.of("reference")] == [1] * 9
    assert [len(draws) for draws in slow.of("reference")] == [1] * 4
    assert [len(draws) for draws in slow.of("copies batch")] == [1] * 6
    assert on_cpu.asked == []


def test_a_gpu_that_nobody_looked_at_times_nobody(new_sessions: NewSessions):
    models = FakeModels(0.5, 0.2)
    sessions_ = new_sessions(models, "cuda")
    sessions_._alone = None

    with pytest.raises(RuntimeError, match="before the candidate's code"):
        finish(sessions_.run())


def test_work_left_running_on_a_gpu_hides_nothing(new_sessions: NewSessions):
    """It lengthens all of the others' blocks by 2 ms, and is over when the candidate's own begin."""

    class Sly(FakeModels):
        def _block(
            self, kind: str, draws: list[Draw], call_ms: float, said_ms: float, checked: int = 0
        ) -> samples.Block:
            self.left_running_ms = 0.0 if kind.startswith("candidate") else self.turn_ms
            return super()._block(kind, draws, call_ms, said_ms, checked)

        turn_ms = 0.0

    def charged_ms(call_ms: float, said_ms: float) -> float:
        sly = Sly(call_ms, call_ms, said_ms=said_ms)
        made = new_sessions(sly, "cuda", timed=30)
        sly.turn_ms = 2.0
        session = finish(made.run())
        assert not session.clocks_agree
        return session.kernel_ms[0]

    assert charged_ms(3.0, 1.01) == pytest.approx(3.0 / 1.02 - 0.004)
    assert charged_ms(0.012, 0.001) == pytest.approx(0.012 / 1.02 - 0.004)


def test_copies_that_follow_each_other_take_longer_than_one_alone(new_sessions: NewSessions):
    """Each writes back what the last one left in the cache; that is not around the candidate's calls."""

    class Cached(FakeModels):
        def copies_batch(self, draws: list[Draw], *, marked: bool = False) -> samples.Block:
            copy_ms = 0.16 - 0.03 / len(draws)
            return self._block("copies batch", draws, copy_ms, copy_ms if marked else 0.0)

    session = finish(new_sessions(Cached(0.5, 0.4), "cuda", slots=4, timed=30).run())

    assert session.kernel_ms == pytest.approx([0.4] * 30)
    assert session.queued_ms == pytest.approx(0.4)


def test_times_that_launching_makes_scatter_more(new_sessions: NewSessions):
    """Its 0.5 ms are 0.1 ms of work on the device once it is queued beforehand."""

    class Slow(FakeModels):
        def candidate_batch(self, draws: list[Draw], *, checked: int) -> samples.Block:
            return self._block("candidate batch", draws, 0.1, 0.1, checked)

    launching = new_sessions(Slow(0.5, 0.5), "cuda", timed=30)
    both = new_sessions(Slow(1.5, 0.5), "cuda", timed=30)
    queued = new_sessions(FakeModels(0.5, 0.5), "cuda", timed=30)
    on_cpu = new_sessions(FakeModels(0.5, 0.5), "cpu", slots=6, timed=30)

    cpu, usual, wide = intervals.CPU_SCATTER, intervals.GPU_SCATTER, intervals.LAUNCH_SCATTER
    assert launching.scatters_of(finish(launching.run())) == (wide, usual)
    assert both.scatters_of(finish(both.run())) == (wide, wide)
    assert queued.scatters_of(finish(queued.run())) == (usual, usual)
    assert on_cpu.scatters_of(finish(on_cpu.run())) == (cpu, cpu)
