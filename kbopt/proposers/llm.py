"""Asks language models for kernels, one conversation for each brief."""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import replace
from pathlib import Path

from kbopt.core.costs import Usage
from kbopt.core.languages import Language
from kbopt.core.proposals import Blame, Brief, Candidate, NoProposal
from kbopt.core.protocol import Arithmetic
from kbopt.core.text import encodable
from kbopt.proposers.answers import NewSource, judge
from kbopt.proposers.litellm_service import LiteLLMService
from kbopt.proposers.models import TimedOut, Unanswerable, WeightedModel
from kbopt.proposers.pool import ModelPool
from kbopt.proposers.prompt import Prompts
from kbopt.proposers.transcripts import Exchange, FailedRequest, Transcript, Transcripts, brief_key

MAX_REPEATED_QUESTIONS = 2


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
