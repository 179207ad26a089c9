"""Recommendations by a model, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kbopt.proposers.litellm_service import close_connections
from kbopt.proposers.llm import LLMProposer
from kbopt.proposers.llm_summary import LLMSummarizer
from kbopt.proposers.models import parse_models
from tests.support.llm_briefs import TASK, failed_trial, trial
from tests.support.openai_server import Answer, Behaviour, Fail, OpenAIServer, Script


@pytest.fixture(autouse=True)
async def connections(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    yield
    await close_connections()


def script(*behaviours: Behaviour) -> OpenAIServer:
    return OpenAIServer(Script(behaviours=behaviours, usd_per_token=0.001))


def summarizer(server: OpenAIServer, folder: Path) -> LLMSummarizer:
    llm = LLMProposer(
        models=parse_models("openai/scripted"),
        api_base=server.url,
        prompts=None,
        language="cuda",
        device_facts="One NVIDIA L40S, 48 GB",
        arithmetic="ieee",
        transcripts=folder,
        max_concurrent=1,
        timeout_s=20.0,
        give_up_after_s=60.0,
    )
    return LLMSummarizer(llm, TASK)


async def test_a_summary_is_the_models_advice_and_is_paid_for(tmp_path: Path) -> None:
    with script(Fail(status=500), Answer(text="\n- Use float4.\n")) as server:
        trials = [trial(), failed_trial("f", "undeclared name")]
        text, (usage,) = await summarizer(server, tmp_path).summarize(trials, "- Use shared memory.")
    assert text == "- Use float4."
    assert usage.requests == 1
    assert usage.usd == pytest.approx(0.001 * (usage.prompt_tokens + usage.completion_tokens))
    assert "- Use shared memory." in server.requests[1].prompt
    assert "undeclared name" in server.requests[1].prompt
    assert "One NVIDIA L40S, 48 GB" in server.requests[1].prompt
    assert "A task with a convolution is the exception" not in server.requests[1].prompt


@pytest.mark.parametrize(
    "behaviour",
    [
        Answer(text=""),
        Answer(text="- Half a poi", finish="length"),
        Answer(text="No.", refusal="No."),
        Fail(status=400, message="maximum context length"),
    ],
)
async def test_the_previous_advice_stands_where_the_model_gives_none(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    with script(behaviour) as server:
        text, _ = await summarizer(server, tmp_path).summarize([trial()], "- Use shared memory.")
    assert text == "- Use shared memory."


async def test_the_same_summary_is_not_asked_for_twice(tmp_path: Path) -> None:
    with script(Answer(text="- Use float4.")) as server:
        first = await summarizer(server, tmp_path).summarize([trial()], "")
        assert await summarizer(server, tmp_path).summarize([trial()], "") == first
        assert len(server.requests) == 1
        await summarizer(server, tmp_path).summarize([trial()], "- Use float4.")
        assert len(server.requests) == 2
