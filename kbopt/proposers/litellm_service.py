"""The only home of LiteLLM, which is imported on first use.

Importing LiteLLM takes seconds and would fetch price lists from the network, read `.env` files and print
banners: `load_litellm` switches all of that off.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import inspect
import logging
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kbopt.core.costs import Usage
from kbopt.core.extras import require
from kbopt.core.text import encodable
from kbopt.proposers.endpoint import Address
from kbopt.proposers.litellm_failures import typed_failures
from kbopt.proposers.models import Message, Reply, Unanswerable
from kbopt.proposers.replies import count, dollars, mended, text_of

LITELLM_GRACE_S = 5.0
"""By which LiteLLM's own limit is longer: what it raises for it, it raises for a server's 408 as well."""


def load_litellm() -> Any:
    """LiteLLM without network look-ups, `.env` files, telemetry, banners or warnings at import."""
    with _loading:
        return _loaded()


_loading = threading.Lock()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: it takes a quarter of the import, and finds nothing to free."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@functools.cache
def _loaded() -> Any:
    require("llm", "a language model")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    with warnings.catch_warnings(), _uncollected():
        # LiteLLM and the pydantic models it builds warn about themselves on import.
        warnings.simplefilter("ignore")
        litellm: Any = importlib.import_module("litellm")
        importlib.import_module("litellm.main")
        chat = importlib.import_module("litellm.llms.base_llm.chat.transformation")
        # Pydantic builds these on first use, and warns about them then.
        litellm.ModelResponse()
        litellm.EmbeddingResponse()
    # LiteLLM's place to repair what a service answered, before its own reading of it.
    chat.BaseConfig.transform_parsed_response_dict = lambda _, response: mended(response)
    # Said of an answer in another form than the protocol's, which is repaired.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    # Models differ in what they accept, and a temperature is a wish.
    litellm.drop_params = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


async def close_connections() -> None:
    """Closes the connections that the running event loop's requests left open for reuse.

    LiteLLM keeps a client for each event loop, under a name that ends with the loop's id, and closes none.
    """
    if not _loaded.cache_info().currsize:
        return
    clients = load_litellm().in_memory_llm_clients_cache
    mine = [key for key in clients.cache_dict if key.endswith(f"-{id(asyncio.get_running_loop())}")]
    for key in mine:
        closing = clients.cache_dict.pop(key).close()
        if inspect.isawaitable(closing):
            await closing


class LiteLLMService:
    """A `ChatService` over LiteLLM, with its retries off: the pool knows better when to ask again."""

    def __init__(self, *, api_base: str | None, timeout_s: float, temperature: float | None = None) -> None:
        self._api_base = api_base
        self._timeout_s = timeout_s
        self._temperature = temperature

    async def complete(self, model: str, messages: Sequence[Message]) -> Reply:
        litellm = await asyncio.to_thread(load_litellm)
        started = time.monotonic()
        temperature = {} if self._temperature is None else {"temperature": self._temperature}
        with typed_failures(litellm, self._timeout_s):
            # LiteLLM's own limit is per read: a server that trickles would keep it waiting.
            async with (
                asyncio.timeout(self._timeout_s),
                _options(litellm, model, self._api_base) as options,
            ):
                response = await litellm.acompletion(
                    model=model,
                    messages=[
                        {name: encodable(text) for name, text in message.items()} for message in messages
                    ],
                    timeout=self._timeout_s + LITELLM_GRACE_S,
                    num_retries=0,
                    max_retries=0,
                    **options,
                    **temperature,
                )
            if response is None:  # LiteLLM's own reading of HTTP 422, after a request with fewer options
                raise Unanswerable("the service takes the request for malformed (HTTP 422)")
            choice = response.choices[0]
            message = choice.message
        extra = getattr(message, "provider_specific_fields", None) or {}
        usage = getattr(response, "usage", None)
        return Reply(
            text=_text(message, choice.finish_reason),
            finish=str(choice.finish_reason or "stop"),
            refusal=text_of(extra.get("refusal")),
            usage=Usage(
                model=model,
                prompt_tokens=count(getattr(usage, "prompt_tokens", None)),
                completion_tokens=count(getattr(usage, "completion_tokens", None)),
                usd=_usd(litellm, model, response),
                seconds=round(time.monotonic() - started, 3),
            ),
        )


@contextlib.asynccontextmanager
async def _options(litellm: Any, model: str, api_base: str | None) -> AsyncIterator[dict[str, Any]]:
    """LiteLLM's options for a request to `api_base`, None for the provider's own address.

    LiteLLM appends a path to the whole address. One with a query or a user gets a client of its own.
    """
    address = Address.parse(api_base) if api_base else None
    if address is None or not (address.query or address.headers):
        yield {"api_base": address.base if address else None}
        return
    _, provider, key, _ = litellm.get_llm_provider(model, api_base=address.base)
    client = importlib.import_module("openai").AsyncOpenAI(
        base_url=address.base,
        api_key=key or os.environ.get(f"{provider.upper()}_API_KEY", ""),
        default_headers=address.headers,
        default_query=address.query,
        max_retries=0,
    )
    async with client:
        yield {"api_base": address.base, "client": client}


def _text(message: Any, finish: object) -> str:
    """The answer's text. Some servers take all of it for reasoning: a whole one is read there."""
    text = text_of(message.content)
    if text.strip() or finish == "length":
        return text
    return text_of(getattr(message, "reasoning_content", None))


def embed_texts(
    model: str, texts: Sequence[str], *, api_base: str | None, timeout_s: float
) -> list[list[float]]:
    """One vector for each text, in order, from one request. Blocks.

    Raises `RequestFailed`, `ModelUnusable` or `Unanswerable`.
    """
    litellm = load_litellm()

    async def embedded() -> list[list[float]]:
        try:
            with typed_failures(litellm, timeout_s):
                async with asyncio.timeout(timeout_s), _options(litellm, model, api_base) as options:
                    response = await litellm.aembedding(
                        model=model,
                        input=list(texts),
                        timeout=timeout_s,
                        # For OpenAI's protocol LiteLLM reads a `max_retries` of 0 as 2 here, unlike for
                        # chat: a request may be sent three times before it counts as failed.
                        num_retries=0,
                        max_retries=0,
                        **options,
                    )
                # Within: what has another form than the protocol's raises here.
                rows = sorted(response.data, key=lambda row: row["index"])
                return [[float(value) for value in row["embedding"]] for row in rows]
        finally:
            await close_connections()

    # In a thread of its own, because the caller's may be running an event loop. LiteLLM's blocking call
    # would leave a loop and a connection behind.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, embedded()).result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars for one token."""

    prompt_usd: float
    completion_usd: float


def price_of(model: str) -> Price | None:
    """The list price in LiteLLM's table; None for a model that is not in it."""
    litellm = load_litellm()
    try:
        info = litellm.get_model_info(model)
    except litellm.exceptions.ModelNotMappedError:
        return None
    return Price(
        prompt_usd=info["input_cost_per_token"] or 0.0, completion_usd=info["output_cost_per_token"] or 0.0
    )


def _usd(litellm: Any, model: str, response: Any) -> float | None:
    """What the request cost: the service's own figure where it gives one, else by LiteLLM's price list."""
    reported = dollars(getattr(getattr(response, "usage", None), "cost", None))
    if reported is not None:
        return reported
    if price_of(model) is None:
        return None
    return dollars(litellm.completion_cost(completion_response=response, model=model))
