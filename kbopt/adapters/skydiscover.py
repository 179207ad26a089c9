"""SkyDiscover's evaluator file over an Evaluator.

with Evaluator() as evaluator, evaluator_file(evaluator, reference_source) as path:
    skydiscover.run_discovery(initial_program=source, evaluator=path, config=config)
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from skydiscover.evaluation.evaluation_result import EvaluationResult

from kbopt.adapters import asking
from kbopt.library import Judges

_FILE = '''"""Asks kbopt for verdicts; alive as long as `evaluator_file` is open."""

from kbopt.adapters.skydiscover import ask


def evaluate(program_path):
    return ask(ask_with, program_path)
'''


def evaluator_file(evaluator: Judges, reference_source: str) -> AbstractContextManager[Path]:
    """The path of an evaluator file for SkyDiscover; it answers until the context ends."""
    return asking.asking_file(evaluator, reference_source, _FILE)


def ask(address: str, key: bytes, program_path: str) -> EvaluationResult:
    """The verdict on a file, as SkyDiscover reads it. Raises InfraError."""
    verdict = asking.ask(address, key, program_path)
    return EvaluationResult(metrics=verdict.metrics, artifacts=verdict.artifacts)
