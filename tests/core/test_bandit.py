from __future__ import annotations

import pytest

from kbopt.core.bandit import Bandit, has_tunables


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("BLOCK = 64  # tune: 32, 64", True),
        ("#define BLOCK 64  // tune: 32, 64", True),
        ("BLOCK = 64  # tune this some day", False),
        ("BLOCK = 64  # tune:", False),
        ("constexpr int BLOCK = 64; /* tune: 32, 64 */", True),
        ("BLOCK = 64  # tune: 64", False),
        ("# tune: 32, 64", False),
        ("", False),
    ],
)
def test_tunables_are_told_from_other_comments(source, answer):
    assert has_tunables(source) is answer


def test_both_actions_are_tried_while_nothing_is_known():
    drawn = [Bandit().choose(seed) for seed in range(200)]
    assert 70 < drawn.count("refine") < 130


def test_what_pays_off_is_chosen_more_and_more():
    bandit = Bandit()
    for seed in range(200):
        action = bandit.choose(seed)
        bandit.learn(action, paid_off=action == "refine")
    drawn = [bandit.choose(seed) for seed in range(1000, 1200)]
    assert drawn.count("refine") > 150


def test_it_notices_when_refinement_stops_paying_off():
    bandit = Bandit()
    for _ in range(100):
        bandit.learn("refine", paid_off=True)
        bandit.learn("propose", paid_off=False)
    for _ in range(60):
        bandit.learn("refine", paid_off=False)
        bandit.learn("propose", paid_off=True)
    drawn = [bandit.choose(seed) for seed in range(200)]
    assert drawn.count("propose") > 150


def test_the_same_seed_gives_the_same_action():
    assert [Bandit().choose(s) for s in range(50)] == [Bandit().choose(s) for s in range(50)]
