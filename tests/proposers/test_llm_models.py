"""Naming models, choosing among them, and adding up what they cost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbopt.core.costs import Usage, per_model
from kbopt.core.errors import UserError
from kbopt.core.settings import Budget, SearchSettings
from kbopt.proposers.litellm_service import Price, price_of
from kbopt.proposers.models import WeightedModel, parse_models, weighted_order
from kbopt.proposers.preflight import estimate, preflight


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("openai/gpt-5", [("openai/gpt-5", 1.0)]),
        (
            "openai/gpt-5:2, anthropic/claude-opus-4-5:0.5",
            [("openai/gpt-5", 2.0), ("anthropic/claude-opus-4-5", 0.5)],
        ),
        ("ollama/llama3:8b", [("ollama/llama3:8b", 1.0)]),
        ("openrouter/deepseek/deepseek-r1:free:3", [("openrouter/deepseek/deepseek-r1:free", 3.0)]),
        ("bedrock/anthropic.claude-v2:0", [("bedrock/anthropic.claude-v2:0", 1.0)]),
        ("bedrock/anthropic.claude-v2:0:2", [("bedrock/anthropic.claude-v2:0", 2.0)]),
    ],
)
def test_names_and_weights_are_told_apart(text: str, expected: list[tuple[str, float]]) -> None:
    assert [(model.name, model.weight) for model in parse_models(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has '' where NAME"),
        ("openai/gpt-5,,b", "has '' where NAME"),
        ("openai/gpt 5", "has 'openai/gpt 5' where NAME"),
        ("openai/gpt-5:-2", "the weight -2. A weight is a number above 0"),
        ("a:1,b,a:2", "names a more than once"),
    ],
)
def test_a_faulty_list_of_models_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse_models(text)


def test_each_model_is_first_in_proportion_to_its_weight() -> None:
    models = parse_models("a:6,b:3,c:1")
    rng = random.Random(0)
    first = [weighted_order(models, rng)[0] for _ in range(10_000)]
    assert [round(first.count(name) / 10_000, 1) for name in "abc"] == [0.6, 0.3, 0.1]


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=6), st.integers())
def test_every_model_is_tried_once_in_an_order_that_the_seed_fixes(weights: list[float], seed: int) -> None:
    models = [WeightedModel(name=f"m{number}", weight=weight) for number, weight in enumerate(weights)]
    order = weighted_order(models, random.Random(seed))
    assert sorted(order) == sorted(model.name for model in models)
    assert order == weighted_order(models, random.Random(seed))


def test_usage_is_added_up_for_each_model() -> None:
    first = Usage(model="a", prompt_tokens=10, completion_tokens=1, usd=0.5, seconds=1.0)
    second = Usage(model="b", prompt_tokens=7, completion_tokens=2, usd=None)
    third = Usage(model="a", requests=2, prompt_tokens=5, completion_tokens=3, usd=0.25, seconds=2.0)
    total = Usage(model="a", requests=3, prompt_tokens=15, completion_tokens=4, usd=0.75, seconds=3.0)
    assert per_model([first, second, third]) == (total, second)


def test_a_sum_with_an_unknown_price_is_unknown() -> None:
    (total,) = per_model([Usage(model="a", usd=0.5), Usage(model="a", usd=None), Usage(model="a", usd=1.0)])
    assert total.usd is None


def test_prices_are_known_without_asking_the_network() -> None:
    assert price_of("openai/gpt-4o-mini") == Price(prompt_usd=0.15e-6, completion_usd=0.60e-6)
    assert price_of("openai/scripted") is None


def test_an_estimate_shares_requests_by_weight_and_counts_summaries() -> None:
    settings = SearchSettings(algorithm="PS_Summarizer", num_steps=5, num_candidates=4, num_proposals=2)
    models = parse_models("cheap:3,dear:1,unlisted:1")
    prices = {
        "cheap": Price(prompt_usd=1e-6, completion_usd=2e-6),
        "dear": Price(prompt_usd=1e-5, completion_usd=2e-5),
        "unlisted": None,
    }
    expected = estimate(settings, models, prices, prompt_tokens=1000, completion_tokens=500)
    assert expected.proposals == 40
    assert (expected.prompt_tokens, expected.completion_tokens) == (45_000, 22_500)
    # 27 requests of 0.002 dollars and 9 of 0.02.
    assert expected.usd == pytest.approx(0.234)
    assert expected.unpriced == ("unlisted",)


def test_the_line_before_the_start_says_what_the_settings_imply() -> None:
    settings = SearchSettings(
        num_steps=5, num_candidates=5, budget=Budget(evaluations=20, usd=3.0, minutes=30)
    )
    assert preflight(settings, parse_models("openai/gpt-4o-mini,openai/scripted")) == (
        "25 proposals, about 20 evaluations; about 125k prompt and 100k completion tokens; about $0.04; "
        "no price known for openai/scripted; the limit of $3 counts these only where the service reports "
        "what they cost: --max-tokens counts them all; stops at $3 or 30 minutes."
    )
    assert "$" not in preflight(SearchSettings(), parse_models("openai/scripted"))


def test_a_limit_in_dollars_is_not_promised_for_models_without_a_price() -> None:
    line = preflight(SearchSettings(budget=Budget(usd=1.0)), parse_models("openai/scripted"))
    assert "no price known for openai/scripted; the limit of $1 counts these only where" in line
    assert "stops at" not in line
    limited = preflight(
        SearchSettings(budget=Budget(usd=1.0, tokens=50_000)), parse_models("openai/scripted")
    )
    assert limited.endswith("stops at 50k tokens.")
