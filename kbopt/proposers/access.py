"""Whether models can be asked at all: found out before a GPU is paid for, and at no cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from kbopt.core.errors import UserError, unknown_name
from kbopt.proposers.endpoint import Endpoint, Unreachable, check_model
from kbopt.proposers.litellm_failures import short_reason
from kbopt.proposers.litellm_service import load_litellm
from kbopt.proposers.models import WeightedModel

_OWN_CREDENTIALS = frozenset({"bedrock", "sagemaker", "vertex_ai", "ollama", "ollama_chat"})
"""Providers whose SDK finds credentials outside the environment, or that need none."""

_GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/openai"
"""Google's OpenAI-compatible address, which lists the models that its own address serves."""


_ANSWERS_FOR_EACH_MODEL = frozenset({"openai", "anthropic", "gemini"})
"""Providers that document `GET /models/NAME`, aliases included; of others the table is believed too."""


def check_model_access(models: Sequence[WeightedModel], api_base: str | None) -> None:
    """Raises `UserError` where a model cannot be asked.

    Checks the provider, the keys, and that the service lists the model: the server at `api_base`, else the
    provider. A provider that cannot be reached is looked up in LiteLLM's packaged table. Models of providers
    without a list (bedrock, vertex_ai, azure) are left to the first request.
    """
    litellm = load_litellm()
    if api_base is not None and not api_base.startswith(("http://", "https://")):
        raise UserError(f"--api-base is {api_base!r}. It is a URL, as in http://127.0.0.1:8000/v1.")
    for model in models:
        try:
            name, provider, key, url = litellm.get_llm_provider(model.name, api_base=api_base)
        except litellm.exceptions.BadRequestError as error:
            raise UserError(
                f"--model {model.name}: {_first_sentence(short_reason(error))} "
                "Write PROVIDER/MODEL, as in openai/gpt-5 or anthropic/claude-opus-4-5."
            ) from None
        _check_keys(litellm, model.name, provider, api_base)
        if api_base is not None:
            key = os.environ.get(f"{provider.upper()}_API_KEY", "")
            _check_server(Endpoint(name=f"--api-base {api_base}", url=api_base, headers=_bearer(key)), name)
        elif provider not in _OWN_CREDENTIALS and (service := _service(litellm, provider, key, url)):
            _check_provider(litellm, service, name)


def _check_server(server: Endpoint, model: str) -> None:
    try:
        check_model(server, model)
    except Unreachable as error:
        raise UserError(f"no server answers at {server.name}: {error}.") from None


def _check_provider(litellm: Any, service: Endpoint, model: str) -> None:
    known = {listed.removeprefix(f"{service.name}/") for listed in _table(litellm, service.name)}
    try:
        check_model(service, model, believed=() if service.name in _ANSWERS_FOR_EACH_MODEL else known)
    except Unreachable as error:
        if known and model not in known:
            raise unknown_name(f"model of {service.name} (not reached, {error}):", model, known) from None


def _service(litellm: Any, provider: str, key: str | None, url: str | None) -> Endpoint | None:
    """Where `provider` lists its models, None if it has no such address."""
    match provider:
        case "openai":
            url, key = litellm.OpenAIGPTConfig.get_api_base(), os.environ["OPENAI_API_KEY"]
        case "gemini":
            url, key = _GEMINI_URL, os.environ.get("GEMINI_API_KEY") or os.environ["GOOGLE_API_KEY"]
        case "anthropic":
            account = litellm.AnthropicModelInfo
            base = account.get_api_base().rstrip("/").removesuffix("/v1")
            headers = {"anthropic-version": "2023-06-01", **account.get_auth_header()}
            return Endpoint(name=provider, url=f"{base}/v1", headers=headers)
    return Endpoint(name=provider, url=url, headers=_bearer(key)) if url and key else None


def _table(litellm: Any, provider: str) -> list[str]:
    """The models of `provider` in LiteLLM's packaged table that write or embed text."""
    modes = {
        name: litellm.model_cost[name].get("mode") for name in litellm.models_by_provider.get(provider, ())
    }
    return [name for name, mode in modes.items() if mode in ("chat", "responses", "embedding")]


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _first_sentence(reason: str) -> str:
    return reason.partition(": ")[2].split(". ")[0].rstrip(".") + "."


def _check_keys(litellm: Any, model: str, provider: str, api_base: str | None) -> None:
    if provider in _OWN_CREDENTIALS:
        return
    missing = litellm.validate_environment(model)["missing_keys"]
    if api_base is not None:
        missing = [name for name in missing if not name.endswith("_API_BASE")]
    if not missing:
        return
    # Google's key has two names, either of which will do.
    joint = " or " if provider == "gemini" else " and "
    free = " Any value will do for a server that asks for none." if api_base is not None else ""
    raise UserError(
        f"--model {model} needs {joint.join(missing)}, which the environment does not have. "
        f"Set it (export {missing[0]}=...) and start again.{free}"
    )
