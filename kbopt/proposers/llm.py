"""Asks language models for kernels. The only home of LiteLLM, which is imported on first use.

Importing LiteLLM takes seconds and would fetch price lists from the network, read `.env` files and print
banners: `load_litellm` switches all of that off.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import hashlib
import importlib
import inspect
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbopt.core.redaction import redact
from kbopt.core.types import Brief, Candidate, NoProposal, Usage
from kbopt.proposers.answers import NewSource, judge
from kbopt.proposers.models import (
    Message,
    ModelPool,
    ModelUnusable,
    Reply,
    RequestFailed,
    Unanswerable,
    WeightedModel,
    parse_models,
)
from kbopt.proposers.prompt import Language, Prompts
from kbopt.proposers.transcripts import Exchange, FailedRequest, Transcript, Transcripts, brief_key

__all__ = ["LLMProposer", "WeightedModel", "parse_models"]

MAX_REPEATED_QUESTIONS = 2
MAX_REASON_CHARS = 300


class LLMProposer:
    """A proposer that asks LiteLLM models, one conversation for each brief.

    `api_base` goes with every request, for OpenAI-compatible servers. `transcripts` is a folder of this
    search alone. `temperature` None leaves it to the model. Raises `InfraError` once no model has answered
    for `give_up_after_s`.
    """

    name = "llm"

    def __init__(
        self,
        *,
        models: tuple[WeightedModel, ...],
        api_base: str | None,
        prompts: Path | None,
        language: Language,
        device_facts: str,
        transcripts: Path,
        max_concurrent: int,
        timeout_s: float,
        temperature: float | None = None,
        give_up_after_s: float = 600.0,
    ) -> None:
        self.prompts = Prompts.load(prompts)
        self._system = self.prompts.system(language, device_facts)
        self._transcripts = Transcripts(transcripts)
        service = LiteLLMService(api_base=api_base, timeout_s=timeout_s, temperature=temperature)
        self._pool = ModelPool(
            service, models, max_concurrent=max_concurrent, give_up_after_s=give_up_after_s
        )

    async def propose(self, brief: Brief) -> Candidate | NoProposal:
        """A source from the first answer that gives one; a bad answer is asked again with its fault.

        Answers that the transcript holds are not asked for again.
        """
        key = brief_key(brief)
        transcript = self._transcripts.find(brief.id, key)
        if transcript is None:
            transcript = Transcript(
                brief=brief.id, key=key, system=self._system, prompt=self.prompts.proposal(brief)
            )
            self._transcripts.save(transcript)
        parent = brief.parent.candidate.source if brief.parent else None
        question = transcript.prompt
        faults: list[str] = []
        for number in range(1 + MAX_REPEATED_QUESTIONS):
            if number == len(transcript.exchanges):
                try:
                    transcript = await self._answered(transcript, question, brief.seed)
                except Unanswerable as error:
                    faults.append(str(error))
                    break
            exchange = transcript.exchanges[number]
            verdict = judge(exchange.answer, exchange.finish, exchange.refusal, parent)
            if isinstance(verdict, NewSource):
                return Candidate(
                    id=brief.id,
                    source=verdict.source,
                    parent=brief.parent.candidate.id if brief.parent else None,
                    proposer=f"llm:{exchange.model}",
                    memory_version=brief.memory_version,
                    note=verdict.note,
                    usage=transcript.usage,
                )
            faults.append(verdict.reason)
            if exchange.finish == "content_filter":
                # The same words meet the same filter.
                break
            question = self.prompts.again(verdict.reason)
        return NoProposal(reason="; then ".join(faults), usage=transcript.usage)

    async def ask(self, topic: str, question: str) -> Transcript:
        """The transcript of one question outside of any brief; one asked before is not asked again."""
        key = hashlib.sha256(question.encode()).hexdigest()
        transcript = self._transcripts.find(topic, key)
        if transcript is not None and transcript.exchanges:
            return transcript
        transcript = Transcript(brief=topic, key=key, system="", prompt=question)
        return await self._answered(transcript, question, seed=int(key[:8], 16))

    async def _answered(self, transcript: Transcript, question: str, seed: int) -> Transcript:
        """The transcript with one more answer, saved before it is returned."""

        def keep_failure(model: str, reason: str) -> None:
            nonlocal transcript
            failure = FailedRequest(model=model, reason=reason, at=time.time())
            transcript = replace(transcript, failures=(*transcript.failures, failure))
            self._transcripts.save(transcript)

        reply = await self._pool.complete(transcript.messages(question), seed=seed, on_failure=keep_failure)
        exchange = Exchange(
            model=reply.usage.model,
            question=question,
            answer=reply.text,
            finish=reply.finish,
            refusal=reply.refusal,
            usage=reply.usage,
            at=time.time(),
        )
        transcript = replace(transcript, exchanges=(*transcript.exchanges, exchange))
        self._transcripts.save(transcript)
        return transcript


def load_litellm() -> Any:
    """LiteLLM without network look-ups, `.env` files, telemetry, banners or warnings at import."""
    with _loading:
        return _loaded()


_loading = threading.Lock()


@functools.cache
def _loaded() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    with warnings.catch_warnings():
        # LiteLLM and the pydantic models it builds warn about themselves on import.
        warnings.simplefilter("ignore")
        litellm: Any = importlib.import_module("litellm")
        importlib.import_module("litellm.main")
        # Pydantic builds these on first use, and warns about them then.
        litellm.ModelResponse()
        litellm.EmbeddingResponse()
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
        options = {} if self._temperature is None else {"temperature": self._temperature}
        with _typed_failures(litellm, self._timeout_s):
            # LiteLLM's own limit is per read: a server that trickles would keep it waiting.
            async with asyncio.timeout(self._timeout_s):
                response = await litellm.acompletion(
                    model=model,
                    messages=[dict(message) for message in messages],
                    api_base=self._api_base,
                    timeout=self._timeout_s,
                    num_retries=0,
                    max_retries=0,
                    **options,
                )
            choice = response.choices[0]
            message = choice.message
        extra = getattr(message, "provider_specific_fields", None) or {}
        return Reply(
            text=message.content or "",
            finish=choice.finish_reason or "stop",
            refusal=extra.get("refusal") or "",
            usage=Usage(
                model=model,
                prompt_tokens=response.usage.prompt_tokens or 0,
                completion_tokens=response.usage.completion_tokens or 0,
                usd=_usd(litellm, model, response),
                seconds=round(time.monotonic() - started, 3),
            ),
        )


def embed_texts(
    model: str, texts: Sequence[str], *, api_base: str | None, timeout_s: float
) -> list[list[float]]:
    """One vector for each text, in order, from one request. Blocks.

    Raises `RequestFailed`, `ModelUnusable` or `Unanswerable`.
    """
    litellm = load_litellm()

    async def embedded() -> list[list[float]]:
        try:
            with _typed_failures(litellm, timeout_s):
                async with asyncio.timeout(timeout_s):
                    response = await litellm.aembedding(
                        model=model,
                        input=list(texts),
                        api_base=api_base,
                        timeout=timeout_s,
                        # For OpenAI's protocol LiteLLM reads a `max_retries` of 0 as 2 here, unlike for
                        # chat: a request may be sent three times before it counts as failed.
                        num_retries=0,
                        max_retries=0,
                    )
                rows = sorted(response.data, key=lambda row: row["index"])
                return [row["embedding"] for row in rows]
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
    reported = getattr(response.usage, "cost", None)
    if isinstance(reported, int | float):
        return float(reported)
    if price_of(model) is None:
        return None
    return float(litellm.completion_cost(completion_response=response, model=model))


@contextlib.contextmanager
def _typed_failures(litellm: Any, timeout_s: float) -> Iterator[None]:
    """Turns what LiteLLM raises into `RequestFailed`, `ModelUnusable` or `Unanswerable`."""
    try:
        yield
    except TimeoutError:
        raise RequestFailed(f"no answer within {timeout_s:g} s") from None
    except tuple(litellm.exceptions.LITELLM_EXCEPTION_TYPES) as error:
        raise _classified(error) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # What LiteLLM's parsers raise for a body that is JSON but not the protocol's.
        raise RequestFailed(f"the answer is not in the protocol's form: {error!r}") from error


def _classified(error: Any) -> RequestFailed | ModelUnusable | Unanswerable:
    reason = short_reason(error)
    status = getattr(error, "status_code", None)
    if status in (401, 402, 403, 404):
        return ModelUnusable(reason)
    if status in (400, 413, 422):
        return Unanswerable(reason)
    return RequestFailed(reason, _retry_after_s(error))


def short_reason(error: BaseException) -> str:
    """The service's words on one line: without LiteLLM's stack of class names, and without keys."""
    words = " ".join(str(error).partition("Traceback (most recent call last)")[0].split())
    kind = type(error).__name__
    for prefix in ("litellm.", f"{kind}: ", f"{kind}: ", "OpenAIException - "):
        words = words.removeprefix(prefix)
    words = redact(words, os.environ)
    return f"{kind}: {words}"[:MAX_REASON_CHARS]


def _retry_after_s(error: Any) -> float | None:
    """The `Retry-After` of the response, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    headers = getattr(error, "litellm_response_headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
