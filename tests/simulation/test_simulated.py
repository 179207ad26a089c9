from __future__ import annotations

import asyncio
import itertools
import statistics
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import CompileFailed, Measured
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import SearchSettings
from kbopt.simulated import LANDSCAPES, Latency, SimulatedBackend, landscape, simulate
from kbopt.simulated.backend import judge
from kbopt.simulated.kernels import to_point, to_source
from kbopt.simulated.landscapes import _OPTIMUM, NUM_LEVELS, NUM_PARAMETERS

POINTS = st.tuples(*[st.integers(0, NUM_LEVELS - 1)] * NUM_PARAMETERS)


def request(source: str, task: str = "sim/smooth", repeat: int = 0) -> EvalRequest:
    return EvalRequest(task=LANDSCAPES[task].task, source=source, protocol=EvalProtocol(), repeat=repeat)


@given(POINTS)
def test_a_source_says_which_point_it_is(point):
    assert to_point(to_source(point)) == point


@pytest.mark.parametrize("source", ["", "import torch", to_source((16,) * 8), "BLOCK_M = 3"])
def test_any_other_source_fails_to_compile(source):
    assert isinstance(judge(request(source)).outcome, CompileFailed)


@pytest.mark.parametrize("name", LANDSCAPES)
@given(POINTS)
def test_nothing_is_faster_than_the_optimum(name, point):
    terrain = LANDSCAPES[name]
    assert terrain.speedup(_OPTIMUM) == pytest.approx(3.0)
    assert 0.3 <= terrain.speedup(point) <= 3.0
    assert (terrain.speedup(point) == 3.0) == (point == _OPTIMUM)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_thousand_first_kernels_do_not_come_near_the_optimum(name):
    terrain = LANDSCAPES[name]
    rng = np.random.default_rng(0)
    assert max(terrain.speedup(terrain.first_point(rng)) for _ in range(1000)) < 1.9


def test_the_rugged_landscape_has_many_local_optima_and_the_smooth_one_has_none():
    def is_local_optimum(terrain, point):
        here = terrain.speedup(point)
        for parameter, step in itertools.product(range(NUM_PARAMETERS), (-1, 1)):
            moved = list(point)
            moved[parameter] = min(max(moved[parameter] + step, 0), NUM_LEVELS - 1)
            if terrain.speedup(tuple(moved)) > here:
                return False
        return True

    rng = np.random.default_rng(0)
    points = [tuple(map(int, p)) for p in rng.integers(4, 12, size=(3000, 1)).repeat(8, axis=1)]
    assert sum(is_local_optimum(LANDSCAPES["sim/rugged"], p) for p in set(points)) >= 3
    assert not any(is_local_optimum(LANDSCAPES["sim/smooth"], p) for p in set(points))


def test_the_deceptive_landscape_leads_away_from_the_optimum():
    terrain = LANDSCAPES["sim/deceptive"]
    start, trap = (6,) * 8, (3,) * 8
    way = [tuple(a + (b - a) * i // 4 for a, b in zip(start, _OPTIMUM, strict=True)) for i in range(4)]
    assert terrain.speedup(trap) == pytest.approx(1.8)
    assert terrain.speedup(way[1]) < terrain.speedup(start) < terrain.speedup((5,) * 8)


def test_a_third_of_the_faulty_landscape_does_not_work():
    terrain = LANDSCAPES["sim/faulty"]
    rng = np.random.default_rng(1)
    faults = [terrain.fault(tuple(map(int, p))) for p in rng.integers(NUM_LEVELS, size=(1000, 8))]
    assert 300 < sum(fault is not None for fault in faults) < 400
    assert set(faults) == {None, "compile_failed", "wrong_answer", "crashed", "timed_out"}


def test_a_repeat_is_another_draw_of_the_same_truth():
    source = to_source(_OPTIMUM)
    draws = [judge(request(source, "sim/faulty", repeat)).outcome for repeat in range(50)]
    assert all(isinstance(outcome, Measured) for outcome in draws)
    speedups = [outcome.speedup for outcome in draws]
    assert np.mean(speedups) == pytest.approx(3.0, abs=0.05)
    assert 0.05 < np.std(speedups) < 0.15
    covered = sum(outcome.speedup_ci[0] <= 3.0 <= outcome.speedup_ci[1] for outcome in draws)
    assert covered >= 43


def test_an_unknown_landscape_is_named_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean sim/smooth"):
        landscape("sim/smoth")


async def test_the_backend_keeps_the_order_of_a_batch_and_serves_one_call_at_a_time():
    backend = SimulatedBackend(service_s=0.02, max_batch=4)
    assert (await backend.open()).cold_starts == 1
    assert (await backend.open()).cold_starts == 1
    sources = [to_source((level,) * 8) for level in range(4)]
    start = time.monotonic()
    async with asyncio.timeout(10.0):
        first, second = await asyncio.gather(
            backend.evaluate([request(source) for source in sources]),
            backend.evaluate([request(sources[0])]),
        )
    assert time.monotonic() - start >= 0.1
    assert [r.outcome for r in first] == [judge(request(source)).outcome for source in sources]
    assert second[0] == first[0]
    await backend.close()
    assert (await backend.status()).state == "closed"


async def test_a_closed_backend_is_a_lost_machine():
    with pytest.raises(InfraError, match=r"call open\(\) first"):
        await SimulatedBackend().evaluate([request(to_source(_OPTIMUM))])


async def test_a_lost_machine_answers_after_a_few_retries():
    backend = SimulatedBackend(infra_failure_rate=1.0)
    await backend.open()
    for _ in range(2):
        with pytest.raises(InfraError, match="was lost"):
            await backend.evaluate([request(to_source(_OPTIMUM))])
    assert len(await backend.evaluate([request(to_source(_OPTIMUM))])) == 1


def test_the_evaluator_stays_busy_without_barriers():
    latency = Latency(mean_s=30.0, deviation_s=20.0, smallest_s=1.0)
    world = {"explorers": 12, "proposal_latency": latency, "evaluation_s": 5.0}

    def busy(**options):
        searches = [SearchSettings(num_steps=20, seed=seed, **options) for seed in range(5)]
        return statistics.mean(simulate(s, LANDSCAPES["sim/smooth"], **world).busy_share for s in searches)

    assert busy() > 0.9
    assert busy(synchronous=True) < 0.6


def test_a_fast_proposer_works_from_fresh_results_and_a_slow_one_keeps_the_evaluator_busy():
    def staleness(latency_s):
        settings = SearchSettings(num_steps=20)
        report = simulate(
            settings,
            LANDSCAPES["sim/smooth"],
            explorers=12,
            proposal_latency=Latency(mean_s=latency_s),
            evaluation_s=5.0,
        )
        assert report.busy_share > 0.85
        return report.progress.staleness_median

    # One candidate waits while one is evaluated; six are evaluated while one is written.
    assert staleness(0.1) <= 2
    assert 6 <= staleness(30.0) <= 9
