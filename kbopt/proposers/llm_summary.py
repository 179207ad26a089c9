"""Recommendations written by a language model from what was tried so far."""

from __future__ import annotations

from collections.abc import Sequence

from kbopt.core.costs import Usage
from kbopt.core.proposals import Trial
from kbopt.core.task import Task
from kbopt.proposers.llm import LLMProposer
from kbopt.proposers.models import Unanswerable


class LLMSummarizer:
    """A summarizer for `task` that asks the models of `llm`, and keeps its questions beside their others."""

    def __init__(self, llm: LLMProposer, task: Task) -> None:
        self._llm = llm
        self._task = task

    async def summarize(self, trials: Sequence[Trial], previous: str) -> tuple[str, tuple[Usage, ...]]:
        """The model's advice, merged by it with `previous`, which stands where the model gives none."""
        question = self._llm.summary_question(self._task, trials, previous)
        try:
            transcript = await self._llm.ask("summary", question)
        except Unanswerable:
            return previous, ()
        exchange = transcript.exchanges[-1]
        # Cut off advice would lose its last points for good: it replaces the previous one.
        is_whole = exchange.finish == "stop" and not exchange.refusal
        return (is_whole and exchange.answer.strip()) or previous, transcript.usage
