"""The file of strategies, and what a question says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from kbopt.compose.proposers import strategies
from kbopt.config import BackendConfig, ProposerConfig
from kbopt.core.errors import UserError
from kbopt.core.kernel_strategies import Bound
from kbopt.core.languages import Language
from kbopt.proposers.prompt import Prompts
from kbopt.proposers.strategies import load_strategies
from kbopt.proposers.transcripts import Transcript, brief_key
from tests.support.llm_briefs import brief, trial

OWN = """
[[strategy]]
name = "mine"
fits = ["memory"]
languages = ["c"]
text = "Do it my way."
"""


@pytest.mark.parametrize("language", get_args(Language))
def test_each_language_has_enough_for_the_first_briefs_and_some_against_every_limit(
    language: Language,
) -> None:
    found = load_strategies(None, language)
    assert len(found) >= 8
    assert {bound for strategy in found for bound in strategy.fits} == set(get_args(Bound))
    assert [strategy.name for strategy in found if not strategy.fits] == ["own-choice"]
    assert len({strategy.text for strategy in found}) == len(found)


def test_a_users_file_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "strategies.toml").write_text(OWN)
    (found,) = load_strategies(tmp_path, "c")
    assert (found.name, found.text, found.fits) == ("mine", "Do it my way.", ("memory",))
    with pytest.raises(UserError, match="no \\[\\[strategy\\]\\] for cuda"):
        load_strategies(tmp_path, "cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[strategy]", "strategies in .* cannot be used: "),
        ('[[strategy]]\ntext = "x"', "has no name"),
        ('[[strategy]]\nname = "a"\ntext = ""', "1 to 1000 characters"),
        (f'[[strategy]]\nname = "a"\ntext = "{"x" * 1001}"', "1 to 1000 characters"),
        (
            '[[strategy]]\nname = "a"\ntext = "x"\nfits = ["speed"]',
            "list of memory, compute, latency, launch",
        ),
        ('[[strategy]]\nname = "a"\ntext = "x"\nlanguages = "c"', "list of c, cuda, triton, nvrtc"),
        ('[[strategy]]\nname = "a"\ntext = "x"\nfit = ["memory"]', "known are name, fits, needs_product"),
        ('[[strategy]]\nname = "a"\ntext = "x"\nneeds_product = "no"', "has to be true or false"),
        ('[[strategy]]\nname = "a"\ntext = "x"\n' * 2, "two strategies 'a'"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "strategies.toml").write_text(text)
    with pytest.raises(UserError, match=message) as told:
        load_strategies(tmp_path, "c")
    assert str(tmp_path / "strategies.toml") in str(told.value)


def test_only_who_reads_the_briefs_is_asked_for_strategies() -> None:
    cpu = BackendConfig(name="local", device="cpu")
    assert strategies(ProposerConfig(name="tunables"), cpu) == ()
    for config in (ProposerConfig(name="llm+tunables"), ProposerConfig(name="agent", agent="claude")):
        assert strategies(config, cpu) == load_strategies(None, "c")
    triton = ProposerConfig(name="llm", language="triton")
    assert strategies(triton, BackendConfig(name="modal")) == load_strategies(None, "triton")


def test_a_first_question_holds_its_strategy_and_a_later_one_none() -> None:
    strategy = load_strategies(None, "triton")[1]
    prompts = Prompts.load(None)
    asked = replace(brief(), strategy=strategy)
    assert strategy.text in prompts.proposal(asked)
    assert strategy.text in prompts.agent(asked, "triton", "", evaluations=3, minutes=5)
    assert "Choose it yourself." in prompts.proposal(brief())
    assert "The strategy" not in prompts.proposal(brief(parent=trial()))


def test_a_transcript_names_the_strategy_and_belongs_to_it() -> None:
    one, other = load_strategies(None, "c")[:2]
    assert brief_key(replace(brief(), strategy=one)) != brief_key(replace(brief(), strategy=other))
    assert brief_key(replace(brief(), strategy=one)) != brief_key(brief())
    said = Transcript(brief="b", key="k", system="", prompt="p", strategy=one.name)
    assert said.text.startswith("## Strategy\n\nown-choice")
