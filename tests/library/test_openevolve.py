from __future__ import annotations

from pathlib import Path

import pytest
from openevolve import run_evolution
from openevolve.config import Config, LLMModelConfig

from kbopt import Evaluator
from kbopt.adapters.openevolve import ask, evaluator_file
from kbopt.core.errors import InfraError
from tests.library.kernels import BROKEN, FAST, REFERENCE, WRONG, fenced
from tests.support.openai_server import Answer, OpenAIServer, Script

pytestmark = pytest.mark.slow


def test_the_file_answers_as_openevolve_asks(evaluator: Evaluator, tmp_path: Path) -> None:
    programs = {name: tmp_path / f"{name}.py" for name in ("fast", "wrong", "broken")}
    for name, source in zip(programs, (FAST, WRONG, BROKEN), strict=True):
        programs[name].write_text(source)
    with evaluator_file(evaluator, REFERENCE) as path:
        namespace: dict[str, object] = {}
        exec(path.read_text(), namespace)
        answers = {name: namespace["evaluate"](str(program)) for name, program in programs.items()}
    assert answers["fast"].metrics["combined_score"] > 0.0
    assert answers["wrong"].metrics == {"combined_score": 0.0, "measured": 0.0}
    assert answers["wrong"].artifacts["outcome"] == "wrong_answer"
    assert answers["broken"].artifacts["outcome"] == "compile_failed"


def test_a_task_that_cannot_be_scored_is_an_error_and_no_score(evaluator: Evaluator, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FAST)
    with evaluator_file(evaluator, "import torch\n") as path:
        namespace: dict[str, object] = {}
        exec(path.read_text(), namespace)
        with pytest.raises(InfraError, match="does not define Model"):
            namespace["evaluate"](str(program))


def test_the_file_is_dead_once_its_context_ends(evaluator: Evaluator, tmp_path: Path) -> None:
    with evaluator_file(evaluator, REFERENCE) as path:
        folder = path.parent
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        ask(str(folder / "socket"), b"key", str(tmp_path))


def test_openevolve_finds_the_right_kernel(evaluator: Evaluator, tmp_path: Path) -> None:
    with OpenAIServer(Script(behaviours=(Answer(text=fenced(FAST)),))) as server:
        config = Config()
        config.max_iterations = 2
        config.diff_based_evolution = False
        config.llm.api_base = server.url
        config.llm.models = [
            LLMModelConfig(
                name="scripted", api_base=server.url, api_key="none", timeout=30, retries=0, weight=1.0
            )
        ]
        config.llm.evaluator_models = config.llm.models
        config.evaluator.parallel_evaluations = 1
        config.evaluator.cascade_evaluation = False
        with evaluator_file(evaluator, REFERENCE) as path:
            result = run_evolution(
                initial_program=WRONG, evaluator=path, config=config, iterations=2, output_dir=str(tmp_path)
            )
    assert result.best_code.strip() == FAST.strip()
    assert result.best_score > 0.0
