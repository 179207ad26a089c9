"""The proposer that asks models, against a real server through LiteLLM."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.proposals import Candidate, NoProposal
from kbopt.proposers.litellm_service import close_connections
from kbopt.proposers.llm import LLMProposer
from kbopt.proposers.models import parse_models
from tests.support.llm_briefs import CHANGED, PARENT, brief, edit, rewrite, trial
from tests.support.openai_server import Answer, Behaviour, Drop, Fail, Garbage, Hang, OpenAIServer, Script

# kbopt itself ignores what is said of answers in another form; pytest makes errors of it again.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

BRIEF = brief(parent=trial())
FINE = brief("f1", parent=trial(), summary="FINE")
FINE_ANSWER = Answer(text=rewrite(), when="FINE")
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


def completion(message: dict[str, Any], usage: str = "null") -> str:
    """A body of the protocol around a message that may be in another form."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return f'{{"object": "chat.completion", "choices": [{json.dumps(choice)}], "usage": {usage}}}'


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
    ("given", "before", "after"),
    [
        ({"query": "api-version=1&k=%2F"}, "", "?api-version=1&k=%2F"),
        ({"user": "me:p@ss"}, "me:p%40ss@", "/#end"),
        ({"user": "me", "query": "k=1"}, "me@", "/?k=1"),
    ],
)
async def test_an_address_may_hold_a_query_and_a_user(
    tmp_path: Path, given: dict[str, str], before: str, after: str
) -> None:
    with script(Answer(text=rewrite()), **given) as server:
        address = server.url.replace("//", f"//{before}") + after
        answer = await proposer(server, tmp_path, api_base=address).propose(BRIEF)
        assert [request.path for request in server.requests] == ["/v1/chat/completions"]
    assert isinstance(answer, Candidate)


async def test_a_request_that_a_service_takes_for_malformed_is_not_sent_for_ever(tmp_path: Path) -> None:
    with script(Fail(status=422, message="body: field required")) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
        assert len(server.requests) <= 2
    assert isinstance(answer, NoProposal)
    assert answer.blame == "answer"
    assert "HTTP 422" in answer.reason


@pytest.mark.parametrize(
    "body", ["null", "[]", "<html>Welcome</html>", '{"choices": null}', '{"id": "x"}', ""]
)
async def test_what_is_no_answer_is_asked_for_a_few_times_only(tmp_path: Path, body: str) -> None:
    with script(Garbage(body=body)) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
        assert len(server.requests) == 5
    assert isinstance(answer, NoProposal)


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
    assert [failure["reason"] for failure in transcript(tmp_path)["failures"]] == [
        "no answer within 1 s; --request-timeout allows more"
    ]
    assert spent(answer).requests == 2
    assert spent(answer).usd is None


async def test_a_model_that_is_too_slow_is_asked_twice_and_both_requests_are_counted(tmp_path: Path) -> None:
    with script(Hang()) as server:
        answer = await proposer(server, tmp_path, timeout_s=1.0).propose(BRIEF)
    assert isinstance(answer, NoProposal)
    assert "failed 2 times for this prompt: no answer within 1 s; --request-timeout allows" in answer.reason
    assert answer.blame == "service"
    assert answer.usage == (Usage(model="openai/scripted", requests=2, usd=None, seconds=2.0),)


@pytest.mark.parametrize(
    "poison",
    [
        Fail(status=500, when="POISON"),
        Fail(status=429, message="Request too large", retry_after_s=0.01, when="POISON"),
        Fail(status=529, message="Overloaded", when="POISON"),
        Garbage(body='{"choices": []}', when="POISON"),
        Garbage(when="POISON"),
        Drop(when="POISON"),
    ],
)
async def test_a_prompt_that_always_fails_is_given_up_while_others_go_on(
    tmp_path: Path, poison: Behaviour
) -> None:
    with script(poison, FINE_ANSWER) as server:
        asked = proposer(server, tmp_path, give_up_after_s=6.0)
        await asked.propose(FINE)
        bad = asyncio.create_task(asked.propose(brief("b8", parent=trial(), summary="POISON")))
        others = []
        while not bad.done():
            others.append(await asked.propose(brief(f"c{len(others)}", parent=trial(), summary="FINE")))
            await asyncio.sleep(0.05)
        answer = await bad
    assert isinstance(answer, NoProposal)
    assert answer.blame == "service"
    assert sum("POISON" in request.prompt for request in server.requests) <= 20
    assert {type(other) for other in others} == {Candidate}


async def test_a_prompt_that_fails_alone_ends_after_a_time_and_the_next_is_answered(tmp_path: Path) -> None:
    with script(Fail(status=500, when="POISON"), FINE_ANSWER) as server:
        asked = proposer(server, tmp_path, give_up_after_s=1.0)
        await asked.propose(FINE)
        bad = await asked.propose(brief("b8", parent=trial(), summary="POISON"))
        good = await asked.propose(brief("b9", parent=trial(), summary="FINE again"))
    assert isinstance(bad, NoProposal)
    assert "failed" in bad.reason
    assert isinstance(good, Candidate)


async def test_two_prompts_that_fail_for_long_end_the_search(tmp_path: Path) -> None:
    with script(Fail(status=500, when="DOWN"), FINE_ANSWER) as server:
        asked = proposer(server, tmp_path, give_up_after_s=1.0)
        await asked.propose(FINE)
        assert isinstance(await asked.propose(brief("b8", parent=trial(), summary="DOWN")), NoProposal)
        with pytest.raises(InfraError, match="no model has answered for 1 s"):
            await asked.propose(brief("b9", parent=trial(), summary="DOWN too"))


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410, 451, 501])
async def test_a_refusal_of_one_prompt_is_not_the_models_end(tmp_path: Path, status: int) -> None:
    with script(Fail(status=status, message="flagged", when="POISON"), FINE_ANSWER) as server:
        asked = proposer(server, tmp_path)
        for number in range(2):
            await asked.propose(brief(f"g{number}", parent=trial(), summary="FINE"))
            refused = await asked.propose(brief(f"b{number}", parent=trial(), summary=f"POISON {number}"))
            assert isinstance(refused, NoProposal)
            assert "openai/scripted refuses: " in refused.reason
        assert isinstance(await asked.propose(brief("g2", parent=trial(), summary="FINE")), Candidate)
    assert len(server.requests) == 5


async def test_a_refusal_of_two_prompts_in_a_row_is_the_models_end(tmp_path: Path) -> None:
    with script(FINE_ANSWER, Fail(status=402, message="Insufficient credits", when="EMPTY")) as server:
        asked = proposer(server, tmp_path)
        await asked.propose(FINE)
        assert isinstance(await asked.propose(brief("b8", parent=trial(), summary="EMPTY")), NoProposal)
        with pytest.raises(UserError, match=r"no model can be asked. .*Insufficient credits"):
            await asked.propose(brief("b9", parent=trial(), summary="EMPTY still"))
        assert len(server.requests) == 3


async def test_a_prompt_that_one_model_refuses_is_put_to_another(tmp_path: Path) -> None:
    models = parse_models("openai/a:1000000,openai/b:1")
    answered = Answer(text=rewrite(), when="model: b")
    with script(FINE_ANSWER, answered, Fail(status=403, when="model: a"), models=("a", "b")) as server:
        asked = proposer(server, tmp_path, models=models)
        first = await asked.propose(FINE)
        second = await asked.propose(brief("b8", parent=trial(), summary="POISON"))
    assert isinstance(first, Candidate)
    assert isinstance(second, Candidate)
    assert (first.proposer, second.proposer) == ("llm:openai/a", "llm:openai/b")


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": rewrite()}]},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": rewrite()}]},
        {"content": [rewrite()[:40], rewrite()[40:]]},
        {"content": {"type": "text", "text": rewrite()}},
        {"content": None, "reasoning_content": rewrite()},
        {"content": "", "reasoning": f"Hm.</think>{rewrite()}"},
        {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": rewrite()}]},
        {"content": None, "reasoning_content": [{"type": "text", "text": rewrite()}]},
        {"content": "", "thinking": rewrite()},
        {"content": [{"type": "text", "text": {"value": rewrite(), "annotations": []}}]},
        {"content": "half a pair: \ud83d\n" + rewrite()},
        {"content": [{"type": "text", "text": None}, {"type": "output_text", "text": rewrite()}]},
        {"content": [{"type": "text", "content": rewrite()}]},
        {"content": rewrite(), "annotations": "none", "function_call": "none", "tool_calls": "none"},
    ],
)
async def test_an_answer_in_another_form_is_read(tmp_path: Path, message: dict[str, Any]) -> None:
    with script(Garbage(body=completion(message))) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
        assert len(server.requests) == 1
    assert isinstance(answer, Candidate)
    assert answer.source == CHANGED


@pytest.mark.parametrize(
    "choice", [{"delta": {"content": rewrite()}}, {"text": rewrite()}, {"message": rewrite()}]
)
async def test_an_answer_in_another_place_is_read(tmp_path: Path, choice: dict[str, Any]) -> None:
    with script(Garbage(body=json.dumps({"choices": [choice]}))) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
        assert len(server.requests) == 1
    assert isinstance(answer, Candidate)


async def test_a_refusal_in_a_list_of_parts_is_one(tmp_path: Path) -> None:
    with script(
        Garbage(body=completion({"content": [{"type": "refusal", "refusal": "I cannot."}]}))
    ) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, NoProposal)
    assert "the model refused: I cannot." in answer.reason


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ("null", (0, 0, None)),
        ('"none"', (0, 0, None)),
        ("[1]", (0, 0, None)),
        ('{"prompt_tokens": "10", "completion_tokens": 5}', (10, 5, None)),
        ('{"prompt_tokens": -10, "completion_tokens": 1e400}', (0, 0, None)),
        ('{"prompt_tokens": NaN, "completion_tokens": "x"}', (0, 0, None)),
        ('{"prompt_tokens": 1.5, "completion_tokens": null}', (1, 0, None)),
        ('{"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": "x"}}', (0, 5, None)),
        ('{"cost": NaN}', (0, 0, None)),
        ('{"cost": -1}', (0, 0, None)),
        ('{"cost": Infinity}', (0, 0, None)),
        ('{"cost": 1e308}', (0, 0, None)),
        ('{"prompt_tokens": 1e300, "completion_tokens": 1000000000000000000000}', (0, 0, None)),
        ('{"cost": "0.25"}', (0, 0, 0.25)),
        ('{"cost": {"total": 1}}', (0, 0, None)),
        ('{"cost": true}', (0, 0, None)),
    ],
)
async def test_a_usage_that_is_none_does_not_cost_the_answer(
    tmp_path: Path, usage: str, expected: tuple[int, int, float | None]
) -> None:
    with script(Garbage(body=completion({"content": rewrite()}, usage))) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    paid = spent(answer)
    assert (paid.prompt_tokens, paid.completion_tokens, paid.usd) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [{"index": 0, "error": {"code": 502, "message": "upstream is down"}}]}',
        '{"choices": [{"index": 0, "finish_reason": "error", "message": {"content": ""}}]}',
        '{"error": "upstream is down"}',
        '{"error": {"message": "upstream is down", "code": "overloaded"}}',
    ],
)
async def test_an_error_with_status_200_is_an_error(tmp_path: Path, body: str) -> None:
    with script(Garbage(body=body), Answer(text=rewrite())) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, Candidate)
    assert spent(answer).requests == 1
    (failure,) = transcript(tmp_path)["failures"]
    assert "upstream is down" in failure["reason"] or "ended with an error" in failure["reason"]


@pytest.mark.parametrize(
    "failure",
    [
        Fail(status=429, message="You exceeded your current quota.", code="insufficient_quota"),
        Fail(status=400, message="Your credit balance is too low to access the API."),
        Fail(status=400, message="Billing hard limit has been reached"),
        Fail(status=429, message="Your account is not active, check your billing details."),
        Garbage(body='{"error": {"message": "no more", "code": "insufficient_quota"}}'),
    ],
)
async def test_an_empty_account_is_the_users_to_mend(tmp_path: Path, failure: Behaviour) -> None:
    with script(failure) as server, pytest.raises(UserError, match="no model can be asked"):
        await proposer(server, tmp_path).propose(BRIEF)


async def test_what_a_service_says_is_kept_without_control_characters(tmp_path: Path) -> None:
    words = "bad \ud800 \x1b[31mred\x00\n end"
    with script(Fail(status=400, message=words)) as server:
        answer = await proposer(server, tmp_path).propose(BRIEF)
    assert isinstance(answer, NoProposal)
    assert answer.reason.isprintable()
    assert "bad [31mred end" in answer.reason


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
