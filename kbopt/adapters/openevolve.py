"""OpenEvolve's evaluator file over an Evaluator.

OpenEvolve loads an evaluator file in every one of its worker processes. One device must not be measured
on by many at once, so the file only asks: the Evaluator stays in the process that opened it, and answers on
a Unix socket.

    with Evaluator() as evaluator, evaluator_file(evaluator, reference_source) as path:
        openevolve.run_evolution(initial_program=source, evaluator=path, config=config)
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openevolve.config import LLMModelConfig
from openevolve.evaluation_result import EvaluationResult
from openevolve.llm.base import LLMInterface

from kbopt.adapters import asking
from kbopt.library import Judges

if TYPE_CHECKING:
    from kbopt.adapters.contest import Contestant

_FILE = '''"""Asks kbopt for verdicts; alive as long as `evaluator_file` is open."""

from kbopt.adapters.openevolve import ask


def evaluate(program_path):
    return ask(ask_with, program_path)
'''


class RemoteModel(LLMInterface):  # type: ignore[misc]
    """A language model for OpenEvolve's worker processes that is asked in the process of the evaluator."""

    def __init__(self, address: asking.Address, config: LLMModelConfig) -> None:
        self._address = address
        self.model = config.name

    async def generate(self, prompt: str, **_: object) -> str:
        """The answer to one question."""
        return await self.generate_with_context("", [{"role": "user", "content": prompt}])

    async def generate_with_context(
        self, system_message: str, messages: list[dict[str, str]], **_: object
    ) -> str:
        """The answer to a conversation."""
        system = [{"role": "system", "content": system_message}] if system_message else []
        return await asyncio.to_thread(asking.ask_model, self._address, [*system, *messages])


def evaluator_file(evaluator: Judges, reference_source: str) -> AbstractContextManager[Path]:
    """The path of an evaluator file for OpenEvolve; it answers until the context ends."""
    return asking.asking_file(evaluator, reference_source, _FILE)


def ask(socket: str, key: bytes, program_path: str) -> EvaluationResult:
    """The verdict on a file, from the process that holds the device. Raises InfraError."""
    verdict = asking.ask(socket, key, program_path)
    return EvaluationResult(metrics=verdict.metrics, artifacts=verdict.artifacts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Takes away the handlers of logs that OpenEvolve leaves at the root, more with each search."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def optimize(
    contestant: Contestant, reference_source: str, start: str, *, budget: int, seed: int, folder: Path
) -> None:
    """Let OpenEvolve search for a kernel of one task, from `start` on: one evaluation an iteration."""
    from openevolve import run_evolution
    from openevolve.config import Config

    with _quiet(), asking.answering(contestant, reference_source, contestant.ask) as address:
        config = Config()
        config.log_level = "ERROR"  # on stderr and in its own file alike
        config.random_seed = seed
        config.max_iterations = budget
        config.diff_based_evolution = False  # whole kernels, as a model writes them for kbopt
        model = LLMModelConfig(
            name="kbopt", init_client=partial(RemoteModel, address), weight=1.0, random_seed=seed
        )
        config.llm.models = config.llm.evaluator_models = [model]
        config.evaluator.parallel_evaluations = 1
        config.evaluator.cascade_evaluation = False
        config.evaluator.max_retries = 0  # a verdict stays what it is
        run_evolution(
            initial_program=start,
            evaluator=address.evaluator_file(_FILE),
            config=config,
            iterations=budget,
            output_dir=str(folder),
        )
    # OpenEvolve takes Ctrl-C and SIGTERM for a wish to end early, waits for a second one, and returns.
    if getattr(signal.getsignal(signal.SIGINT), "__name__", "") == "force_exit_handler":
        raise KeyboardInterrupt
