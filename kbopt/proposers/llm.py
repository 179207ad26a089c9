"""Asks language models for kernels. The only home of LiteLLM, which is imported on first use.

Importing LiteLLM takes seconds and would fetch price lists from the network, read `.env` files and print
banners: `load_litellm` switches all of that off.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import gc
import hashlib
import importlib
import inspect
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbopt.core.extras import require
from kbopt.core.languages import Language
from kbopt.core.redaction import redact
from kbopt.core.text import encodable, one_line
from kbopt.core.types import Arithmetic, Blame, Brief, Candidate, NoProposal, Usage
from kbopt.proposers.answers import NewSource, judge
from kbopt.proposers.endpoint import Address
from kbopt.proposers.models import (
    Garbled,
    Message,
    ModelUnusable,
    Reply,
    RequestFailed,
    TimedOut,
    Unanswerable,
    WeightedModel,
    parse_models,
)
from kbopt.proposers.pool import ModelPool
from kbopt.proposers.prompt import Prompts
from kbopt.proposers.replies import count, dollars, mended, number, text_of
from kbopt.proposers.transcripts import Exchange, FailedRequest, Transcript, Transcripts, brief_key

__all__ = ["LLMProposer", "WeightedModel", "parse_models"]

MAX_REPEATED_QUESTIONS = 2
MAX_REASON_CHARS = 300

LITELLM_GRACE_S = 5.0
"""By which LiteLLM's own limit is longer: what it raises for it, it raises for a server's 408 as well."""


class LLMProposer:
    """A proposer that asks LiteLLM models, one conversation for each brief.

    `api_base` goes with every request, for OpenAI-compatible servers. `transcripts` is a folder of this
    search alone, `lessons` are those that other searches left for it. With `backward` kernels are asked for
    whose gradients count; `arithmetic` is the protocol's, and `tunes` says whether the search varies what
    `# tune:` comments list. `temperature` None leaves it to the model. Raises `InfraError` once no model has
    answered for `give_up_after_s`.
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
        backward: bool = False,
        arithmetic: Arithmetic = "default",
        tunes: bool = False,
        transcripts: Path,
        lessons: str = "",
        max_concurrent: int,
        timeout_s: float,
        temperature: float | None = None,
        give_up_after_s: float = 600.0,
    ) -> None:
        self.prompts = Prompts.load(prompts)
        self._system = self.prompts.system(
            language, device_facts, backward=backward, arithmetic=arithmetic, tunes=tunes
        )
        self.summary_question = functools.partial(
            self.prompts.summary,
            language=language,
            device_facts=device_facts,
            backward=backward,
            arithmetic=arithmetic,
        )
        self._lessons = lessons
        self._transcripts = Transcripts(transcripts)
        self._timeout_s = timeout_s
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
            prompt = encodable(self.prompts.proposal(brief, self._lessons))
            transcript = Transcript(
                brief=brief.id,
                key=key,
                system=self._system,
                prompt=prompt,
                strategy=brief.strategy.name if brief.strategy else "",
            )
            self._transcripts.save(transcript)
        parent = brief.parent.candidate.source if brief.parent else None
        question = transcript.prompt
        faults: list[str] = []
        blame: Blame = "answer"
        for turn in range(1 + MAX_REPEATED_QUESTIONS):
            if turn == len(transcript.exchanges):
                try:
                    transcript = await self._answered(transcript, question, brief.seed)
                except Unanswerable as error:
                    faults.append(str(error))
                    blame = "service" if error.is_service else "answer"
                    transcript = self._transcripts.find(brief.id, key) or transcript
                    break
            exchange = transcript.exchanges[turn]
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
        return NoProposal(reason="; then ".join(faults), usage=transcript.usage, blame=blame)

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

        def keep_failure(model: str, error: Exception) -> None:
            nonlocal transcript
            # What a model wrote for nothing is paid for, and nobody says how much it was.
            late = isinstance(error, TimedOut)
            usage = Usage(model=model, usd=None, seconds=self._timeout_s) if late else None
            failure = FailedRequest(model=model, reason=str(error), at=time.time(), usage=usage)
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
        with _typed_failures(litellm, self._timeout_s):
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
            with _typed_failures(litellm, timeout_s):
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


@contextlib.contextmanager
def _typed_failures(litellm: Any, timeout_s: float) -> Iterator[None]:
    """Turns what LiteLLM raises into `RequestFailed`, `ModelUnusable` or `Unanswerable`."""
    try:
        yield
    except TimeoutError:
        raise TimedOut(f"no answer within {timeout_s:g} s; --request-timeout allows more") from None
    except tuple(litellm.exceptions.LITELLM_EXCEPTION_TYPES) as error:
        raise _classified(error) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # What LiteLLM's parsers raise for a body that is JSON but not the protocol's.
        raise Garbled(f"the answer is not in the protocol's form: {one_line(repr(error))}") from error


def _classified(error: Any) -> RequestFailed | ModelUnusable | Unanswerable:
    reason = short_reason(error)
    status = getattr(error, "status_code", None)
    if status in _REFUSED or _NO_CREDIT.search(f"{error} {getattr(error, 'body', '')}"):
        return ModelUnusable(reason)
    if status in _NOT_ACCEPTED:
        return Unanswerable(reason)
    if _NO_ANSWER.search(str(error)):
        return Garbled(reason)
    return RequestFailed(reason, _retry_after_s(error))


_REFUSED = (401, 402, 403, 404, 405, 410, 451, 501)
_NOT_ACCEPTED = (400, 406, 411, 413, 414, 415, 422, 431)
"""Statuses that another request would meet as well; all others are weather."""

_NO_CREDIT = re.compile(
    r"insufficient[ _](?:balance|credits?|funds|quota)|credit balance is too low"
    r"|billing[ _](?:hard[ _]limit|not[ _]active)|spending limit|account is not active",
    re.I,
)
"""What services say of an empty account under statuses that are weather otherwise."""


_NO_ANSWER = re.compile(
    r"Invalid response object|Empty or invalid response|'choices' that is not a list"
    r"|line \d+ column \d+ \(char \d+\)"
)
"""What LiteLLM says of a body that is not JSON, or not of the protocol's form."""


def short_reason(error: BaseException) -> str:
    """The service's words on one line: without LiteLLM's stack of class names, and without keys."""
    words = one_line(str(error).partition("Traceback (most recent call last)")[0])
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
    if (seconds := number(value)) is not None:
        return seconds
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
