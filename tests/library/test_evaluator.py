from __future__ import annotations

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import kbopt
from kbopt import Evaluator, KernelGuide
from kbopt.core.errors import UserError
from kbopt.core.outcomes import CompileFailed, Measured, WrongAnswer
from tests.library.kernels import BROKEN, FAST, REFERENCE, SLOW, WRONG, fenced


def test_a_faster_kernel_is_measured_as_faster(evaluator: Evaluator) -> None:
    outcome = evaluator.evaluate(REFERENCE, FAST).outcome
    assert isinstance(outcome, Measured)
    assert outcome.speedup_ci[0] > 1.0


def test_a_batch_keeps_the_order_of_its_candidates(evaluator: Evaluator) -> None:
    results = evaluator.evaluate_batch(REFERENCE, [WRONG, SLOW, BROKEN])
    assert [type(result.outcome) for result in results] == [WrongAnswer, Measured, CompileFailed]


def test_an_empty_batch_has_no_results(evaluator: Evaluator) -> None:
    assert evaluator.evaluate_batch(REFERENCE, []) == []


def test_calls_may_come_from_many_threads(evaluator: Evaluator) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda source: evaluator.evaluate(REFERENCE, source), [WRONG, BROKEN, WRONG]))
    assert [type(result.outcome) for result in results] == [WrongAnswer, CompileFailed, WrongAnswer]


def test_a_task_that_cannot_be_scored_is_the_users_error(evaluator: Evaluator) -> None:
    with pytest.raises(UserError, match="does not define Model"):
        evaluator.evaluate("import torch\n", FAST)


def test_a_closed_evaluator_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="with Evaluator"):
        Evaluator(backend="simulated").evaluate(REFERENCE, FAST)


def test_an_evaluator_can_be_opened_again_after_it_was_closed() -> None:
    evaluator = Evaluator(backend="simulated")
    for _ in range(2):
        with evaluator:
            assert evaluator.status().state == "warm"


def test_a_copy_of_a_guide_shares_its_device(evaluator: Evaluator) -> None:
    guide = KernelGuide(evaluator)
    assert copy.deepcopy(guide).get_feedback("", WRONG, REFERENCE)[0] == 0.0


def test_a_guide_scores_the_kernel_in_an_answer(evaluator: Evaluator) -> None:
    score, feedback = KernelGuide(evaluator).get_feedback("Write a faster kernel.", fenced(FAST), REFERENCE)
    assert score > 1.0
    assert feedback


def test_a_guide_says_what_is_wrong(evaluator: Evaluator) -> None:
    score, feedback = KernelGuide(evaluator).get_feedback("Write a faster kernel.", WRONG, REFERENCE)
    assert score == 0.0
    assert "expected" in feedback


def test_a_guide_says_that_an_answer_holds_no_kernel(evaluator: Evaluator) -> None:
    score, feedback = KernelGuide(evaluator).get_feedback("", "```text\nnothing\n```", REFERENCE)
    assert score == 0.0
    assert feedback.startswith("The answer holds no kernel")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'modal', 'litellm', 'numpy'}"
    code = f"import sys, kbopt; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Evaluater'"):
        kbopt.Evaluater  # noqa: B018
