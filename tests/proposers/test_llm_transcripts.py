"""What is kept of the conversations with models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kbopt.core.costs import Usage
from kbopt.proposers.transcripts import Exchange, FailedRequest, Transcript, Transcripts, brief_key
from tests.support.llm_briefs import brief, trial

EXCHANGE = Exchange(
    model="a", question="Q1", answer="A1", finish="stop", refusal="", usage=Usage(model="a"), at=1.0
)
TRANSCRIPT = Transcript(
    brief="b7",
    key="0" * 64,
    system="S",
    prompt="Q1",
    exchanges=(EXCHANGE,),
    failures=(FailedRequest(model="a", reason="busy", at=0.5),),
)


def test_a_transcript_is_found_by_its_brief_and_key(tmp_path: Path) -> None:
    Transcripts(tmp_path / "new").save(TRANSCRIPT)
    kept = Transcripts(tmp_path / "new")
    assert kept.find("b7", "0" * 64) == TRANSCRIPT
    assert kept.find("b8", "0" * 64) is None
    assert kept.find("b7", "1" * 64) is None
    # The file's name holds twelve digits of the key: the rest counts too.
    assert kept.find("b7", "0" * 63 + "1") is None


def test_saving_leaves_one_file_for_each_brief_and_nothing_half_written(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path)
    for name in ("b7", "b7", "quick/relu PS 0/12"):
        kept.save(Transcript(brief=name, key="0" * 64, system="S", prompt="Q"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "b7-000000000000.json",
        "quick_relu_PS_0_12-000000000000.json",
    ]


def test_the_conversation_of_a_brief_is_found_without_its_question(tmp_path: Path) -> None:
    kept = Transcripts(tmp_path)
    asked_again = replace(TRANSCRIPT, key="1" * 64, exchanges=(replace(EXCHANGE, answer="A2", at=2.0),))
    # "b7 " and "b7_" are written alike, and "b7-0" begins alike.
    others = [replace(TRANSCRIPT, brief=name, key="2" * 64) for name in ("b7 ", "b7_", "b7-0")]
    for transcript in (asked_again, TRANSCRIPT, *others):
        kept.save(transcript)
    assert kept.latest("b7") == asked_again
    assert kept.latest("b7-0") == others[2]
    assert kept.latest("b9") is None


def test_a_conversation_is_text_in_its_order() -> None:
    text = TRANSCRIPT.text
    places = [
        text.index(words) for words in ("## System", "S", "## Prompt", "Q1", "## Answer (a, ", "A1", "busy")
    ]
    assert places == sorted(places)
    assert "Q1" in Transcript(brief="b", key="k", system="", prompt="Q1").text


def test_a_conversation_alternates_and_has_no_empty_message() -> None:
    silent = Transcript(
        brief="b",
        key="k",
        system="",
        prompt="Q1",
        exchanges=(replace(EXCHANGE, answer=""),),
    )
    assert TRANSCRIPT.messages("Q2") == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "Q2"},
    ]
    assert silent.messages("Q2")[0] == {"role": "user", "content": "Q1"}
    assert silent.messages("Q2")[1] == {"role": "assistant", "content": "(no answer)"}


def test_the_key_of_a_brief_depends_on_what_it_asks() -> None:
    asked = brief(parent=trial(), exemplars=(trial("class ModelNew: a = 1"),))
    same = brief(parent=trial(feedback="measured again"), exemplars=(trial("class ModelNew: a = 1"),))
    others = [
        brief("b8", parent=trial(), exemplars=asked.exemplars),
        brief(parent=trial()),
        brief(exemplars=asked.exemplars),
        brief(parent=trial(), exemplars=asked.exemplars, seed=2),
        brief(parent=trial(), exemplars=asked.exemplars, summary="S"),
    ]
    assert brief_key(asked) == brief_key(same)
    assert len({brief_key(one) for one in (asked, *others)}) == 6
