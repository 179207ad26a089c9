"""The proposer that asks models, against a real server through LiteLLM."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import Candidate, NoProposal, Usage
from kbopt.proposers.llm import LLMProposer, close_connections, parse_models
from tests.support.llm_briefs import CHANGED, PARENT, brief, edit, rewrite, trial
from tests.support.openai_server import Answer, Behaviour, Drop, Fail, Garbage, Hang, OpenAIServer, Script

BRIEF = brief(parent=trial())
NEW = "        return torch.relu(x)"
OLD = "        return x.clamp(min=0)"


@pytest.fixture(autouse=True)
async def connections(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A key, and no connection left open for the next test's event loop."""
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    yield
    await close_connections()


def script(*behaviours: Behaviour, **options: Any) -> OpenAIServer:
    return OpenAIServer(Script(behaviours=behaviours, **options))


def proposer(server: OpenAIServer | None, folder: Path, **options: Any) -> LLMProposer:
    given: dict[str, Any] = {
        "models": parse_models("openai/scripted"),
        "api_base": server.url if server else "http://127.0.0.1:9/v1",
        "prompts": None,
        "language": "c",
        "device_facts": "two cores",
        "transcripts": folder,
        "max_concurrent": 4,
        "timeout_s": 20.0,
        "give_up_after_s": 60.0,
    }
    return LLMProposer(**{**given, **options})


def transcript(folder: Path) -> dict[str, Any]:
    (file,) = folder.iterdir()
    value: dict[str, Any] = json.loads(file.read_text())
    return value


def spent(answer: Candidate | NoProposal) -> Usage:
    (usage,) = answer.usage
    return usage


async def test_a_rewrite_becomes_a_candidate_of_the_brief(tmp_path: Path) -> None:
    with script(Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert (answer.id, answer.parent, answer.memory_version) == ("b7", "parent", 4)
    assert answer.source == CHANGED
    assert answer.note == "Calls the fused operation."
    assert answer.proposer == "llm:openai/scripted"
    assert server.requests[0].num_messages == 2
    assert PARENT in server.requests[0].prompt
    assert "two cores" in server.requests[0].prompt


async def test_an_edit_is_applied_to_the_parent(tmp_path: Path) -> None:
    with script(Answer(text=edit(OLD, NEW))) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert answer.source == CHANGED


async def test_a_malformed_answer_is_asked_again_with_the_reason(tmp_path: Path) -> None:
    with script(Answer(text=edit("nowhere", "x")), Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert [request.num_messages for request in server.requests] == [2, 4]
    assert "That answer cannot be used: edit 1 of 1 does not match" in server.requests[1].prompt
    assert spent(answer).requests == 2
    assert spent(answer).completion_tokens == (len(edit("nowhere", "x")) // 4) + (len(rewrite()) // 4)


@pytest.mark.parametrize(
    ("behaviour", "reason", "requests"),
    [
        (Answer(text="Let me think."), "no fenced ```python block", 3),
        (Answer(text=rewrite(PARENT)), "equals the one", 3),
        (Answer(text=rewrite()[:60], finish="length"), "cut off at the length limit", 3),
        (Answer(text="", finish="length"), "before it began", 3),
        (Answer(text="", refusal="I cannot."), "the model refused: I cannot.", 3),
        (Answer(text=""), "it is empty", 3),
        (Answer(text="", finish="content_filter"), "content filter", 1),
    ],
)
async def test_answers_that_stay_unusable_end_in_no_proposal_with_their_cost(
    tmp_path: Path, behaviour: Behaviour, reason: str, requests: int
) -> None:
    with script(behaviour, usd_per_token=0.001) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, NoProposal)
    assert reason in answer.reason
    assert len(server.requests) == spent(answer).requests == requests
    assert spent(answer).prompt_tokens == sum(len(request.prompt) // 4 for request in server.requests)
    assert spent(answer).usd == pytest.approx(
        0.001 * (spent(answer).prompt_tokens + spent(answer).completion_tokens)
    )


async def test_a_prompt_that_the_service_does_not_accept_ends_in_no_proposal(tmp_path: Path) -> None:
    too_long = Fail(
        status=400, message="This model's maximum context length is 10", code="context_length_exceeded"
    )
    with script(too_long) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, NoProposal)
    assert "maximum context length is 10" in answer.reason
    assert answer.usage == ()
    assert "maximum context length" in transcript(tmp_path)["failures"][0]["reason"]


@pytest.mark.parametrize(
    "behaviour",
    [
        Fail(status=429),
        Fail(status=500),
        Fail(status=503),
        Garbage(),
        Garbage(body="{}"),
        Garbage(body='{"choices": []}'),
        Drop(),
    ],
)
async def test_a_request_that_failed_is_sent_again(tmp_path: Path, behaviour: Behaviour) -> None:
    with script(behaviour, behaviour, Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert len(server.requests) == 3
    assert spent(answer).requests == 1
    assert len(transcript(tmp_path)["failures"]) == 2


async def test_a_hanging_model_is_left_after_the_time_limit(tmp_path: Path) -> None:
    with script(Hang(), Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path, timeout_s=1.0).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert [failure["reason"] for failure in transcript(tmp_path)["failures"]] == ["no answer within 1 s"]


async def test_a_retry_waits_as_long_as_the_service_says(tmp_path: Path) -> None:
    with script(Fail(status=429, retry_after_s=1.5), Answer(text=rewrite())) as server:
        await proposer(server, tmp_path, give_up_after_s=100.0).propose(BRIEF)
    (failure,), (exchange,) = transcript(tmp_path)["failures"], transcript(tmp_path)["exchanges"]
    # A lower bound is no race: the clock of one process, and the backoff alone is under 0.2 s.
    assert exchange["at"] - failure["at"] >= 1.5


async def test_a_search_goes_on_with_the_models_that_work(tmp_path: Path) -> None:
    models = parse_models("openai/broken:1000000,openai/scripted:1")
    behaviours = (Fail(status=503, when="model: broken"), Answer(text=rewrite(), when="model: scripted"))
    with script(*behaviours, models=("scripted", "broken")) as server:
        asked = proposer(server, tmp_path, models=models, give_up_after_s=20.0)
        answers = [await asked.propose(brief(f"b{n}", seed=n, parent=trial())) for n in range(4)]
    assert {answer.proposer for answer in answers if isinstance(answer, Candidate)} == {"llm:openai/scripted"}
    names = [request.model for request in server.requests]
    assert names[0] == "broken"
    assert names.count("scripted") == 4


async def test_a_search_gives_up_once_every_model_has_failed_for_long(tmp_path: Path) -> None:
    models = parse_models("openai/a,openai/b")
    with script(Fail(status=503, retry_after_s=3600), models=("a", "b")) as server:
        asked = proposer(server, tmp_path, models=models, give_up_after_s=1.0)
        with pytest.raises(
            InfraError, match=r"no model has answered for 1 s.*(a|b): ServiceUnavailable.*(a|b): S"
        ):
            await asked.propose(BRIEF)
    assert {request.model for request in server.requests} == {"a", "b"}
    assert len(transcript(tmp_path)["failures"]) == len(server.requests)


async def test_a_model_with_a_refused_name_is_never_asked_twice(tmp_path: Path) -> None:
    models = parse_models("openai/gone:1000,openai/scripted:1")
    with script(Answer(text=rewrite())) as server:
        asked = proposer(server, tmp_path, models=models)
        answers = await asyncio.gather(
            *(asked.propose(brief(f"b{n}", seed=n, parent=trial())) for n in range(6))
        )
    assert {answer.proposer for answer in answers if isinstance(answer, Candidate)} == {"llm:openai/scripted"}
    assert len(server.requests) == 6


async def test_no_usable_model_is_the_users_to_mend(tmp_path: Path) -> None:
    with (
        script(models=("other",)) as server,
        pytest.raises(
            UserError, match=r"no model can be asked. openai/scripted: NotFoundError.*does not exist"
        ),
    ):
        await proposer(server, tmp_path).propose(BRIEF)


async def test_a_key_never_reaches_a_message_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-some-length")
    with script(key="another") as server, pytest.raises(UserError) as caught:
        await proposer(server, tmp_path).propose(BRIEF)
    assert "[redacted]" in str(caught.value)
    assert "a-secret" not in str(caught.value)
    (file,) = tmp_path.iterdir()
    assert "a-secret" not in file.read_text()


async def test_requests_under_way_stay_within_the_bound(tmp_path: Path) -> None:
    with script(Answer(text=rewrite(), delay_s=0.05)) as server:
        asked = proposer(server, tmp_path, max_concurrent=2)
        briefs = [brief(f"b{n}", seed=n, parent=trial()) for n in range(8)]
        await asyncio.gather(*(asked.propose(one) for one in briefs))
    assert server.most_at_once == 2


async def test_a_brief_asked_again_is_answered_from_its_transcript(tmp_path: Path) -> None:
    with script(Answer(text="no code"), Answer(text=rewrite())) as server:
        first = await proposer(server, tmp_path).propose(BRIEF)
        again = await proposer(server, tmp_path).propose(BRIEF)
        assert again == first
        assert len(server.requests) == 2


async def test_a_conversation_that_was_cut_is_continued_where_it_ended(tmp_path: Path) -> None:
    with script(Answer(text="no code"), Hang()) as server:
        task = asyncio.create_task(proposer(server, tmp_path).propose(BRIEF))
        while len(server.requests) < 2:
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with script(Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
        assert [request.num_messages for request in server.requests] == [4]
    assert isinstance(answer, Candidate)
    assert spent(answer).requests == 2


async def test_another_seed_or_parent_or_summary_is_another_question(tmp_path: Path) -> None:
    with script(Answer(text=rewrite())) as server:
        asked = proposer(server, tmp_path)
        for other in (
            BRIEF,
            brief(parent=trial(), seed=2),
            brief(parent=trial(PARENT + "\n")),
            brief(parent=trial(), summary="S"),
        ):
            await asked.propose(other)
        assert len(server.requests) == 4


async def test_another_measurement_of_the_parent_is_the_same_question(tmp_path: Path) -> None:
    with script(Answer(text=rewrite())) as server:
        first = await proposer(server, tmp_path).propose(BRIEF)
        again = await proposer(server, tmp_path).propose(brief(parent=trial(feedback="measured again")))
        assert again == first
        assert len(server.requests) == 1


async def test_every_question_and_answer_is_kept(tmp_path: Path) -> None:
    with script(Fail(status=500), Answer(text="no code"), Answer(text=rewrite())) as server:
        await proposer(server, tmp_path).propose(BRIEF)
    kept = transcript(tmp_path)
    assert PARENT in kept["prompt"]
    assert "You write fast kernels" in kept["system"]
    assert [exchange["answer"] for exchange in kept["exchanges"]] == ["no code", rewrite()]
    assert "cannot be used" in kept["exchanges"][1]["question"]
    assert [failure["model"] for failure in kept["failures"]] == ["openai/scripted"]


async def test_dollars_come_from_the_price_list_where_the_service_names_none(tmp_path: Path) -> None:
    models = parse_models("openai/gpt-4o-mini")
    with script(Answer(text=rewrite()), models=("gpt-4o-mini",)) as server:
        usage = spent(await proposer(server, tmp_path, models=models).propose(BRIEF))
    # $0.15 and $0.60 for a million tokens.
    assert usage.usd == pytest.approx(0.15e-6 * usage.prompt_tokens + 0.60e-6 * usage.completion_tokens)


async def test_dollars_are_not_known_for_a_model_without_a_price(tmp_path: Path) -> None:
    with script(Answer(text=rewrite())) as server:
        assert spent(await proposer(server, tmp_path).propose(BRIEF)).usd is None


async def test_the_seed_and_the_weights_choose_the_model(tmp_path: Path) -> None:
    models = parse_models("openai/a:3,openai/b:1")
    with script(Answer(text=rewrite()), models=("a", "b")) as server:
        asked = proposer(server, tmp_path, models=models)
        await asyncio.gather(*(asked.propose(brief(f"b{n}", seed=n, parent=trial())) for n in range(40)))
    names = [request.model for request in server.requests]
    assert 24 <= names.count("a") <= 36


def test_a_proposer_can_be_sent_to_another_process(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(proposer(None, tmp_path))).name == "llm"
