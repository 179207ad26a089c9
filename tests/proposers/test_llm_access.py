"""What is found out before a device is started: providers, keys, servers and the names of models."""

from __future__ import annotations

import pytest

from kbopt.core.errors import UserError
from kbopt.proposers.access import check_model_access
from kbopt.proposers.models import parse_models
from tests.support.openai_server import OpenAIServer, Script


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")


def script(**options: object) -> OpenAIServer:
    return OpenAIServer(Script(**options))


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"--model openai/gpt-5 needs OPENAI_API_KEY"):
        check_model_access(parse_models("openai/gpt-5"), None)
    with pytest.raises(UserError, match=r"anthropic/claude-opus-4-5 needs ANTHROPIC_API_KEY"):
        check_model_access(parse_models("anthropic/claude-opus-4-5"), None)


def test_either_of_two_keys_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="needs GOOGLE_API_KEY or GEMINI_API_KEY"):
        check_model_access(parse_models("gemini/gemini-2.5-pro"), None)


@pytest.mark.parametrize("name", ["gpt-99", "nobody/model"])
def test_an_unknown_provider_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=rf"--model {name}: LLM Provider NOT provided\..*PROVIDER/MODEL"):
        check_model_access(parse_models(name), None)


def test_a_server_is_looked_for_before_anything_starts() -> None:
    with script() as server:
        check_model_access(parse_models("openai/scripted"), server.url)
        with pytest.raises(UserError, match=r"unknown model at .*'skripted'\. Did you mean scripted\?"):
            check_model_access(parse_models("openai/skripted"), server.url)
        assert server.requests == ()
    with pytest.raises(UserError, match=r"no server answers at --api-base http://127\.0\.0\.1:9/v1"):
        check_model_access(parse_models("openai/scripted"), "http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="It is a URL"):
        check_model_access(parse_models("openai/scripted"), "localhost:8000")


def test_an_address_may_hold_a_query_and_a_user() -> None:
    with script(query="api-version=1&k=%2F", user="me:p@ss") as server:
        address = server.url.replace("//", "//me:p%40ss@")
        check_model_access(parse_models("openai/scripted"), f"{address}/?api-version=1&k=%2F#end")
        with pytest.raises(UserError, match="refuses the key"):
            check_model_access(parse_models("openai/scripted"), address)


def test_a_refused_key_is_found_before_anything_starts() -> None:
    with script(key="another") as server, pytest.raises(UserError, match="refuses the key"):
        check_model_access(parse_models("openai/scripted"), server.url)


def test_a_hosted_provider_is_asked_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with script(models=("gpt-5", "gpt-5-mini"), key="test") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        check_model_access(parse_models("openai/gpt-5:2,gpt-5-mini"), None)
        with pytest.raises(
            UserError, match=r"unknown model at openai: 'gpt-55'\. Did you mean gpt-5, gpt-5-mini\?"
        ):
            check_model_access(parse_models("openai/gpt-5,openai/gpt-55"), None)
        monkeypatch.setenv("OPENAI_API_KEY", "stale")
        with pytest.raises(UserError, match="openai refuses the key"):
            check_model_access(parse_models("openai/gpt-5"), None)
        assert server.requests == ()


def test_an_alias_that_is_served_but_not_listed_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    with script(models=("claude-opus-4-5-20251101",), aliases=("claude-opus-4-5",)) as server:
        monkeypatch.setenv("ANTHROPIC_API_BASE", server.url.removesuffix("/v1"))

        check_model_access(parse_models("anthropic/claude-opus-4-5"), None)
        with pytest.raises(UserError, match=r"unknown model at anthropic: 'claude-opus-4'"):
            check_model_access(parse_models("anthropic/claude-opus-4"), None)


@pytest.mark.parametrize("listed", ["accounts/fireworks/models/scripted", "scripted"])
@pytest.mark.parametrize("name", ["scripted", "scripted:nitro"])
def test_owners_and_variants_do_not_make_another_model(listed: str, name: str) -> None:
    with script(models=(listed,)) as server:
        check_model_access(parse_models(f"openai/{name}"), server.url)


def test_a_provider_that_cannot_be_reached_is_looked_up_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    check_model_access(parse_models("openai/gpt-4o-mini"), None)
    with pytest.raises(
        UserError, match=r"unknown model of openai \(not reached, .*refused\): 'gpt-4o-mimi'.*gpt-4o-mini"
    ):
        check_model_access(parse_models("openai/gpt-4o-mimi"), None)


def test_a_known_name_of_a_provider_that_lists_no_aliases_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "test")
    with script(models=("deepseek-v9",)) as server:
        monkeypatch.setenv("DEEPSEEK_API_BASE", server.url)
        check_model_access(parse_models("deepseek/deepseek-chat,deepseek/deepseek-v9"), None)
        with pytest.raises(UserError, match=r"unknown model at deepseek: 'deepseek-chatt'"):
            check_model_access(parse_models("deepseek/deepseek-chatt"), None)


def test_many_names_are_not_all_told() -> None:
    names = tuple(f"model-{number}" for number in range(300))
    with script(models=names) as server, pytest.raises(UserError) as caught:
        check_model_access(parse_models("openai/modell-7"), server.url)
    assert "Did you mean model-7, " in str(caught.value)
    assert str(caught.value).endswith("and 270 more.")
