from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.epsilon_net import EpsilonNet, Neighbour
from kbopt.core.proposals import Candidate


class Angles:
    """Sources are angles in degrees; the distance of two is 2 sin(half their difference)."""

    name = "angles"

    def embed(self, sources: Sequence[str]):
        radians = np.radians([float(source) for source in sources])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def kernel(key: str, angle: float) -> Candidate:
    return Candidate(id=key, source=str(angle), parent=None, proposer="test", memory_version=0)


def net_of(epsilon: float, **angles: float) -> EpsilonNet:
    net = EpsilonNet(Angles(), epsilon)
    for key, angle in angles.items():
        net.insert(kernel(key, angle))
    return net


def test_the_nearest_known_candidate_within_epsilon_covers_a_source():
    net = net_of(0.1, a=0.0, b=4.0, c=90.0)
    near = net.nearest("3.0")
    assert near == Neighbour(key="b", distance=pytest.approx(0.01745, abs=1e-4))
    assert net.nearest("45.0") is None


def test_nothing_is_known_at_first():
    assert net_of(0.1).nearest("1.0") is None


def test_epsilon_itself_counts_as_near():
    assert net_of(2.0, a=0.0).nearest("180.0") == Neighbour(key="a", distance=pytest.approx(2.0))


def test_a_kernel_that_did_not_work_covers_only_its_own_source():
    net = net_of(0.1, a=0.0)
    net.mark_broken("a")
    assert net.nearest("1.0") is None
    assert net.nearest("0.0") == Neighbour(key="a", distance=0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 359), min_size=1, max_size=100), st.integers(0, 359), st.floats(0.0, 0.5))
def test_the_two_passes_find_what_a_full_comparison_finds(angles, probe, epsilon):
    net = EpsilonNet(Angles(), epsilon)
    for number, angle in enumerate(angles):
        net.insert(kernel(str(number), angle))
    vectors = Angles().embed([str(angle) for angle in [*angles, probe]])
    distances = np.linalg.norm(vectors[:-1] - vectors[-1], axis=1)
    found = net.nearest(str(probe))
    if distances.min() <= epsilon - 1e-5:
        assert found is not None
        assert found.distance == pytest.approx(float(distances.min()), abs=1e-6)
    elif distances.min() > epsilon + 1e-5:
        assert found is None


def test_a_batch_keeps_the_farthest_and_drops_what_it_covers():
    net = net_of(0.1, known=0.0)
    batch = [kernel("near", 3.0), kernel("first", 40.0), kernel("twin", 41.0), kernel("far", 120.0)]
    dropped = net.farthest_first(batch, ["known"])
    # 120 goes in first, then 41 (farther from 0 than 40), which covers 40.
    assert {key: near.key for key, near in dropped.items()} == {"near": "known", "first": "twin"}
    assert dropped["near"].distance == pytest.approx(0.05235, abs=1e-4)


def test_a_batch_is_compared_only_with_the_candidates_named():
    net = net_of(0.1, remembered=0.0, forgotten=90.0)
    assert net.farthest_first([kernel("new", 90.0)], ["remembered"]) == {}


def test_the_projection_of_long_vectors_loses_no_neighbour():
    class Fixed:
        name = "fixed"

        def __init__(self, rows):
            self.rows = rows

        def embed(self, sources):
            return self.rows[[int(source) for source in sources]]

    rows = np.random.default_rng(3).standard_normal((501, 256)).astype(np.float32)
    rows[500] = rows[123] + 0.01 * rows[7]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    net = EpsilonNet(Fixed(rows), 0.05)
    for number in range(500):
        net.insert(kernel(f"c{number}", number))
    assert net.nearest("500") == Neighbour(key="c123", distance=pytest.approx(0.01, abs=0.002))
