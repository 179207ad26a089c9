from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.memory import SPREAD, Memory, priority

KINDS = st.sampled_from(["mean", "ucb", "lcb"])
TIES = st.sampled_from(["newest", "oldest"])
# Few different scores, so that ties are the rule and not the exception.
PUTS = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from([0.0, 0.5, 1.0, 1.25, 3.0]), st.integers(1, 3)), max_size=60
)


class SortedList:
    """The memory as plainly as it can be written."""

    def __init__(self, size, kind, ties):
        self.size, self.kind, self.sign = size, kind, 1 if ties == "newest" else -1
        self.items: dict[str, tuple[int, float, int]] = {}
        self.low, self.high = math.inf, 0.0

    def put(self, key, order, mean, count):
        self.low, self.high = min(self.low, mean), max(self.high, mean)
        self.items[key] = (order, mean, count)
        if len(self.items) > self.size:
            del self.items[min(self.items, key=self.rank)]

    def rank(self, key):
        order, mean, count = self.items[key]
        radius = math.sqrt(math.log(2)) * (self.high - self.low) / math.sqrt(count)
        value = {
            "mean": mean,
            "ucb": min(mean + radius, self.high),
            "lcb": max(mean - radius, self.low),
        }[self.kind]
        return value, self.sign * order

    def top(self, k):
        ranked = sorted(self.items, key=lambda key: (self.items[key][1], self.sign * self.items[key][0]))
        return tuple(reversed(ranked))[:k]


@settings(max_examples=300, deadline=None)
@given(PUTS, st.integers(1, 12), KINDS, TIES)
def test_the_memory_agrees_with_a_sorted_list(puts, size, kind, ties):
    memory = Memory(size=size, kind=kind, exploration=1.0, ties=ties)
    model = SortedList(size, kind, ties)
    for number, mean, count in puts:
        memory.put(f"c{number}", order=number + 1, mean=mean, count=count)
        model.put(f"c{number}", number + 1, mean, count)
        assert {key for key in (f"c{i}" for i in range(16)) if key in memory} == set(model.items)
        assert memory.choose() == max(model.items, key=model.rank)
        for k in (1, 3, 100):
            assert memory.top(k) == model.top(k)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=300), st.integers(1, 100))
def test_a_bounded_memory_keeps_the_true_top_k(means, size):
    memory = Memory(size=size, kind="mean", exploration=1.0)
    for number, mean in enumerate(means):
        memory.put(f"c{number}", order=number, mean=mean, count=1)
    best = sorted(range(len(means)), key=lambda i: (means[i], i), reverse=True)[:size]
    assert memory.top(size) == tuple(f"c{i}" for i in best)


def test_the_top_is_right_after_the_leader_fell_among_many():
    memory = Memory(size=1000, kind="mean", exploration=1.0)
    for number in range(200):
        memory.put(f"c{number}", order=number, mean=float(number), count=1)
    memory.put("c199", order=199, mean=0.5, count=2)
    assert memory.top(2) == ("c198", "c197")
    assert memory.top(200)[-2:] == ("c199", "c0")


def test_literal_bounds():
    mean, count = np.array([1.0, 1.0, 2.9]), np.array([1.0, 4.0, 1.0])
    assert list(priority("ucb", mean, count, width=1.0, low=0.0, high=3.0)) == [2.0, 1.5, 3.0]
    assert list(priority("lcb", mean, count, width=1.5, low=0.0, high=3.0)) == [0.0, 0.25, 1.4]
    assert list(priority("mean", mean, count, width=9.0, low=0.0, high=3.0)) == [1.0, 1.0, 2.9]


def test_upper_bounds_are_fresh_at_every_choice():
    memory = Memory(size=10, kind="ucb", exploration=0.1)
    memory.put("often", order=1, mean=1.00, count=9)
    memory.put("once", order=2, mean=0.85, count=1)
    memory.put("bad", order=3, mean=0.0, count=100)
    memory.put("top", order=4, mean=2.0, count=1)
    memory.occupy("top")
    for _ in range(200):
        memory.occupy("top")
    assert memory.choose(n_steps=0) == "often"  # 1.00 + 0.0555 against 0.85 + 0.1665: 1.0166
    assert memory.choose(n_steps=100) == "once"  # 1.00 + 0.1434 against 0.85 + 0.4301


def test_work_in_flight_discounts_a_parent_until_it_is_released():
    memory = Memory(size=10, kind="mean", exploration=1.0)
    memory.put("best", order=1, mean=1.0, count=1)
    memory.put("next", order=2, mean=SPREAD * 1.001, count=1)
    assert memory.choose() == "best"
    memory.occupy("best")
    assert memory.choose() == "next"
    memory.release("best")
    assert memory.choose() == "best"


def test_equal_parents_are_taken_in_turn_even_when_all_score_zero():
    memory = Memory(size=10, kind="mean", exploration=1.0)
    for number in range(3):
        memory.put(f"c{number}", order=number, mean=0.0, count=1)
    taken = []
    for _ in range(6):
        taken.append(memory.choose())
        memory.occupy(taken[-1])
    assert taken == ["c2", "c1", "c0", "c2", "c1", "c0"]


def test_ties_go_to_the_oldest_where_that_is_asked_for():
    memory = Memory(size=10, kind="mean", exploration=1.0, ties="oldest")
    for number in range(3):
        memory.put(f"c{number}", order=number, mean=1.0, count=1)
    assert memory.choose() == "c0"
    assert memory.top(3) == ("c0", "c1", "c2")


def test_a_forgotten_candidate_can_still_be_released_and_come_back():
    memory = Memory(size=1, kind="mean", exploration=1.0)
    memory.put("weak", order=1, mean=1.0, count=1)
    memory.occupy("weak")
    assert memory.put("strong", order=2, mean=2.0, count=1) == "weak"
    memory.release("weak")
    assert memory.put("weak", order=1, mean=3.0, count=2) == "strong"
    assert memory.choose() == "weak"


def test_a_memory_of_no_size_is_refused():
    with pytest.raises(ValueError, match="memory_size must be at least 1, not 0"):
        Memory(size=0, kind="mean", exploration=1.0)
