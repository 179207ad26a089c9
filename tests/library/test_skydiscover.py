from __future__ import annotations

from pathlib import Path

import pytest
from skydiscover import run_discovery
from skydiscover.config import Config, LLMModelConfig

from kbopt import Evaluator
from kbopt.adapters.skydiscover import evaluator_file
from tests.library.kernels import FAST, REFERENCE, WRONG, fenced
from tests.support.openai_server import Answer, OpenAIServer, Script

pytestmark = pytest.mark.slow


def test_skydiscover_finds_the_right_kernel(evaluator: Evaluator, tmp_path: Path) -> None:
    with OpenAIServer(Script(behaviours=(Answer(text=fenced(FAST)),))) as server:
        config = Config()
        config.max_iterations = 1
        config.diff_based_generation = False
        config.llm.models = [
            LLMModelConfig(
                name="scripted", api_base=server.url, api_key="none", timeout=30, retries=0, weight=1.0
            )
        ]
        config.llm.evaluator_models = config.llm.guide_models = config.llm.models
        config.evaluator.cascade_evaluation = False
        config.monitor.enabled = False
        with evaluator_file(evaluator, REFERENCE) as path:
            found = run_discovery(
                initial_program=WRONG,
                evaluator=path,
                config=config,
                iterations=1,
                search="topk",
                output_dir=str(tmp_path),
                cleanup=False,
            )
    assert found.best_solution.strip() == FAST.strip()
    assert found.best_score > 0.0
    assert found.best_program.artifacts["outcome"] == "measured"
