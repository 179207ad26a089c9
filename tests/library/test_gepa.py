from __future__ import annotations

from pathlib import Path
from typing import Any

import gepa
import pytest

from kbopt import Evaluator
from kbopt.adapters.gepa import KernelAdapter
from kbopt.core.outcomes import Measured, WrongAnswer
from tests.library.kernels import FAST, REFERENCE, SLOW, WRONG, fenced

pytestmark = pytest.mark.slow


class ScriptedModel:
    """A language model that gives its answers in order, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.prompts: list[Any] = []

    def __call__(self, prompt: Any) -> str:
        self.prompts.append(prompt)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def test_a_score_and_a_trace_for_each_item(evaluator: Evaluator) -> None:
    batch = KernelAdapter(evaluator).evaluate([REFERENCE, REFERENCE], {"kernel": WRONG}, capture_traces=True)
    assert batch.scores == [0.0, 0.0]
    assert [type(result.outcome) for result in batch.outputs] == [WrongAnswer, WrongAnswer]
    assert len(batch.trajectories) == 2


def test_text_without_a_kernel_scores_zero(evaluator: Evaluator) -> None:
    batch = KernelAdapter(evaluator).evaluate([REFERENCE], {"kernel": "```\nno kernel\n```"})
    assert batch.scores == [0.0]
    assert batch.outputs == [None]


def test_gepa_finds_the_faster_kernel(evaluator: Evaluator, tmp_path: Path) -> None:
    model = ScriptedModel(fenced(WRONG), fenced(FAST))
    result = gepa.optimize(
        seed_candidate={"kernel": SLOW},
        trainset=[REFERENCE],
        valset=[REFERENCE],
        adapter=KernelAdapter(evaluator),
        reflection_lm=model,
        reflection_minibatch_size=1,
        skip_perfect_score=False,
        max_metric_calls=8,
        run_dir=str(tmp_path),
    )
    assert result.best_candidate["kernel"].strip() == FAST.strip()
    assert "Speedup: " in str(model.prompts[0])
    outcome = KernelAdapter(evaluator).evaluate([REFERENCE], result.best_candidate).outputs[0].outcome
    assert isinstance(outcome, Measured)
    assert outcome.speedup_ci[0] > 1.0
