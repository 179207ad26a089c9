"""Shares of the device's seconds among searches."""

from hypothesis import given
from hypothesis import strategies as st

from kbopt.cluster.fairness import FairShare

COSTS_S = st.floats(0.05, 30.0)


def served(costs_s: dict[str, float], at_once: int, rounds: int) -> dict[str, float]:
    """Seconds that each search got which always had requests waiting, each of the same cost."""
    shares, got = FairShare(), dict.fromkeys(costs_s, 0.0)
    running: list[str] = []
    for now in range(rounds):
        running.append(shares.next_of({name: float(now) for name in costs_s}))
        if len(running) == at_once:
            name = running.pop(0)
            got[name] += costs_s[name]
            shares.done(name, costs_s[name])
    return got


@given(st.dictionaries(st.sampled_from("abcd"), COSTS_S, min_size=2), st.integers(1, 8))
def test_searches_that_always_wait_get_equal_seconds(costs_s: dict[str, float], at_once: int) -> None:
    got = served(costs_s, at_once, rounds=3000)

    apart_s = max(got.values()) - min(got.values())
    assert apart_s <= 2 * (at_once + 1) * max(costs_s.values())


def test_who_was_away_is_first_and_not_for_ever() -> None:
    shares = FairShare()
    for now in range(100):
        shares.next_of({"busy": float(now)})
        shares.done("busy", 1.0)
    order = []
    for _ in range(30):
        name = shares.next_of({"busy": 0.0, "back": 1.0})
        shares.done(name, 1.0)
        order.append(name)

    assert order[:9] == ["back"] * 9
    assert order[12:].count("busy") == order[12:].count("back")


def test_what_was_lost_costs_nobody_anything() -> None:
    shares = FairShare()
    assert shares.next_of({"a": 0.0, "b": 1.0}) == "a"
    shares.done("a", None)
    assert shares.next_of({"a": 0.0, "b": 1.0}) == "a"
