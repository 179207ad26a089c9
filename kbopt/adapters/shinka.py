"""ShinkaEvolve's evaluation program over an Evaluator.

    with Evaluator() as evaluator, evaluator_file(evaluator, reference_source) as path:
        job = LocalJobConfig(eval_program_path=str(path))
        runner = ShinkaEvolveRunner(evo_config=..., job_config=job, db_config=..., init_program_str=source)
        runner.run()

ShinkaEvolve starts the program for each kernel, and reads two files that it leaves. Nothing of the package is
imported here: the program needs kbopt alone, and its Python is `LocalJobConfig.python_executable`.
"""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager
from pathlib import Path

from kbopt.adapters import asking
from kbopt.library import Judges

_FILE = '''"""Asks kbopt for a verdict; alive as long as `evaluator_file` is open."""

from kbopt.adapters.shinka import evaluate

if __name__ == "__main__":
    evaluate(ask_with)
'''


def evaluator_file(evaluator: Judges, reference_source: str) -> AbstractContextManager[Path]:
    """The path of an evaluation program for ShinkaEvolve; it answers until the context ends."""
    return asking.asking_file(evaluator, reference_source, _FILE)


def evaluate(address: str, key: bytes) -> None:
    """Judge `--program_path`, and leave `metrics.json` and `correct.json` in `--results_dir`.

    Raises InfraError where there is no verdict; then no file is left, and ShinkaEvolve counts a failed job.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--program_path", required=True)
    parser.add_argument("--results_dir", type=Path, required=True)
    given = parser.parse_args()
    verdict = asking.ask(address, key, given.program_path)
    metrics = {
        "combined_score": verdict.score,
        "public": {"speedup": verdict.score, "outcome": verdict.outcome},
        "private": {},
        "text_feedback": verdict.feedback,
    }
    error = None if verdict.is_measured else f"{verdict.outcome}: {verdict.feedback}"
    given.results_dir.mkdir(parents=True, exist_ok=True)
    (given.results_dir / "metrics.json").write_text(json.dumps(metrics))
    (given.results_dir / "correct.json").write_text(
        json.dumps({"correct": verdict.is_measured, "error": error})
    )
