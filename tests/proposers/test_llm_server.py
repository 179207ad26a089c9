"""The test server itself keeps to the protocol, so that tests against it mean something."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from kbopt.core import codec
from kbopt.proposers.litellm_service import close_connections, load_litellm
from tests.support.openai_server import Answer, Drop, Fail, Garbage, Hang, OpenAIServer, Script

ASKED = {"model": "scripted", "messages": [{"role": "user", "content": "eight ch"}]}


def post(server: OpenAIServer, body: object = ASKED) -> bytes:
    request = urllib.request.Request(
        f"{server.url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        content: bytes = response.read()
    return content


# LiteLLM builds its streaming types on first use, and they warn about themselves. kbopt does not stream.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
async def test_a_streamed_answer_arrives_in_pieces_and_with_its_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    text = "a kernel " * 20
    with OpenAIServer(Script(behaviours=(Answer(text=text, finish="length"),))) as server:
        stream = await load_litellm().acompletion(
            model="openai/scripted",
            api_base=server.url,
            messages=ASKED["messages"],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        await close_connections()
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == text
    assert sum(bool(piece) for piece in pieces) == 5
    assert {chunk.choices[0].finish_reason for chunk in chunks if chunk.choices} == {None, "length"}
    assert [chunk.usage.total_tokens for chunk in chunks if hasattr(chunk, "usage")][-1] == 2 + 45


def test_usage_counts_four_characters_a_token_and_a_price_where_one_is_set() -> None:
    with OpenAIServer(Script(behaviours=(Answer(text="x" * 12),), usd_per_token=0.5)) as server:
        assert json.loads(post(server))["usage"] == {
            "prompt_tokens": 2,
            "completion_tokens": 3,
            "total_tokens": 5,
            "cost": 2.5,
        }


def test_behaviours_come_in_order_and_the_last_repeats() -> None:
    with OpenAIServer(Script(behaviours=(Answer(text="a"), Answer(text="b")))) as server:
        texts = [json.loads(post(server))["choices"][0]["message"]["content"] for _ in range(4)]
    assert texts == ["a", "b", "b", "b"]


def test_random_behaviours_repeat_with_the_seed() -> None:
    def drawn(seed: int) -> list[str]:
        behaviours = tuple(Answer(text=letter) for letter in "abcd")
        with OpenAIServer(Script(behaviours=behaviours, order="random", seed=seed)) as server:
            return [json.loads(post(server))["choices"][0]["message"]["content"] for _ in range(12)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_behaviour_is_kept_for_the_requests_that_it_fits() -> None:
    script = Script(behaviours=(Answer(text="for softmax", when="softmax"), Answer(text="any")))
    with OpenAIServer(script) as server:
        assert b"any" in post(server)
        asked = {"model": "scripted", "messages": [{"role": "user", "content": "quick/softmax"}]}
        assert b"for softmax" in post(server, asked)


def test_a_failure_carries_its_status_and_retry_after() -> None:
    with OpenAIServer(Script(behaviours=(Fail(status=429, retry_after_s=2.5),))) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server)
        with caught.value as error:
            assert (error.code, error.headers["Retry-After"]) == (429, "2.5")
            assert json.loads(error.read())["error"]["message"] == "scripted failure"


def test_a_script_survives_its_file() -> None:
    script = Script(
        behaviours=(Answer(text="a"), Fail(status=429, retry_after_s=1.0), Hang(), Garbage(), Drop()),
        order="random",
        models=("a", "b"),
        usd_per_token=0.1,
    )
    assert codec.loads(Script, codec.dumps(script)) == script
