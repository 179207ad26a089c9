"""OpenEvolve's evaluator file over an Evaluator.

OpenEvolve loads an evaluator file in every one of its worker processes. One device must not be measured
on by many at once, so the file only asks: the Evaluator stays in the process that opened it, and answers on
a Unix socket.

    with Evaluator() as evaluator, evaluator_file(evaluator, reference_source) as path:
        openevolve.run_evolution(initial_program=source, evaluator=path, config=config)
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openevolve.config import LLMModelConfig
from openevolve.evaluation_result import EvaluationResult
from openevolve.llm.base import LLMInterface

from kbopt.core.errors import InfraError, UserError
from kbopt.core.scoring import score
from kbopt.core.types import Measured, outcome_name
from kbopt.library import Judges, kernel_source
from kbopt.proposers.answers import Malformed

if TYPE_CHECKING:
    from kbopt.adapters.contest import Contestant

_FILE = '''"""Asks the evaluator at {address} for verdicts; alive as long as `evaluator_file` is open."""

from kbopt.adapters.openevolve import ask


def evaluate(program_path):
    return ask({address!r}, bytes.fromhex({key!r}), program_path)
'''


Model = Callable[[Sequence[Mapping[str, str]]], str]
"""Answers a conversation, of messages with `role` and `content`."""


class RemoteModel(LLMInterface):  # type: ignore[misc]
    """A language model for OpenEvolve's worker processes that is asked in the process of the evaluator."""

    def __init__(self, address: str, key: bytes, config: LLMModelConfig) -> None:
        self._address = address
        self._key = key
        self.model = config.name

    async def generate(self, prompt: str, **_: object) -> str:
        """The answer to one question."""
        return await self.generate_with_context("", [{"role": "user", "content": prompt}])

    async def generate_with_context(
        self, system_message: str, messages: list[dict[str, str]], **_: object
    ) -> str:
        """The answer to a conversation."""
        system = [{"role": "system", "content": system_message}] if system_message else []
        asked = {"messages": [*system, *messages]}
        answer = await asyncio.to_thread(_asked, self._address, self._key, lambda: asked)
        return str(answer["text"])


@contextmanager
def evaluator_file(evaluator: Judges, reference_source: str) -> Iterator[Path]:
    """The path of an evaluator file for OpenEvolve; it answers until the context ends."""
    with serving(evaluator, reference_source) as (path, _):
        yield path


@contextmanager
def serving(
    evaluator: Judges, reference_source: str, model: Model | None = None
) -> Iterator[tuple[Path, Callable[[LLMModelConfig], RemoteModel]]]:
    """As `evaluator_file`, and an `init_client` for OpenEvolve's configuration, which asks `model`."""
    with tempfile.TemporaryDirectory(prefix="kbopt-openevolve-") as folder:
        address = str(Path(folder) / "socket")
        key = os.urandom(16)
        path = Path(folder) / "evaluator.py"
        path.write_text(_FILE.format(address=address, key=key.hex()))
        with Listener(address, family="AF_UNIX", authkey=key) as listener:
            thread = threading.Thread(
                target=_serve,
                args=(listener, evaluator, reference_source, model),
                name="kbopt-openevolve",
                daemon=True,
            )
            thread.start()
            try:
                yield path, partial(RemoteModel, address, key)
            finally:
                # An empty request is the one way to wake a thread that waits for a connection.
                with Client(address, family="AF_UNIX", authkey=key) as goodbye:
                    goodbye.send_bytes(b"")
                thread.join()


def ask(address: str, key: bytes, program_path: str) -> EvaluationResult:
    """The verdict on a file, from the process that holds the device. Raises InfraError."""
    answer = _asked(address, key, lambda: {"source": Path(program_path).read_text()})
    return EvaluationResult(metrics=answer["metrics"], artifacts=answer["artifacts"])


def _asked(address: str, key: bytes, question: Callable[[], Mapping[str, object]]) -> Any:
    with Client(address, family="AF_UNIX", authkey=key) as connection:
        connection.send_bytes(json.dumps(question()).encode())
        answer = json.loads(connection.recv_bytes())
    if "error" in answer:
        raise InfraError(answer["error"])
    return answer


def _serve(listener: Listener, evaluator: Judges, reference_source: str, model: Model | None) -> None:
    while True:
        connection = listener.accept()
        asked = connection.recv_bytes()
        if not asked:
            connection.close()
            return
        # A thread each: builds of several programs overlap, and the Evaluator keeps the device to one.
        threading.Thread(
            target=_answer, args=(connection, json.loads(asked), evaluator, reference_source, model)
        ).start()


def _answer(
    connection: Connection,
    asked: Mapping[str, Any],
    evaluator: Judges,
    reference_source: str,
    model: Model | None,
) -> None:
    answer: Mapping[str, object]
    try:
        if "messages" in asked:
            answer = {"text": model(asked["messages"]) if model else ""}
        else:
            answer = _verdict(evaluator, reference_source, asked["source"])
    except (InfraError, UserError) as error:
        answer = {"error": str(error)}
    with suppress(ConnectionError), connection:
        connection.send_bytes(json.dumps(answer).encode())


def _verdict(evaluator: Judges, reference_source: str, text: str) -> dict[str, object]:
    source = kernel_source(text)
    if isinstance(source, Malformed):
        return {
            "metrics": {"combined_score": 0.0, "measured": 0.0},
            "artifacts": {"outcome": "compile_failed", "feedback": source.reason},
        }
    result = evaluator.evaluate(reference_source, source)
    outcome = result.outcome
    metrics = {"combined_score": score(outcome), "measured": float(isinstance(outcome, Measured))}
    return {
        "metrics": metrics,
        "artifacts": {"outcome": outcome_name(outcome), "feedback": result.feedback},
    }


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

    with _quiet(), serving(contestant, reference_source, contestant.ask) as (path, client):
        config = Config()
        config.log_level = "ERROR"  # on stderr and in its own file alike
        config.random_seed = seed
        config.max_iterations = budget
        config.diff_based_evolution = False  # whole kernels, as a model writes them for kbopt
        model = LLMModelConfig(name="kbopt", init_client=client, weight=1.0, random_seed=seed)
        config.llm.models = config.llm.evaluator_models = [model]
        config.evaluator.parallel_evaluations = 1
        config.evaluator.cascade_evaluation = False
        config.evaluator.max_retries = 0  # a verdict stays what it is
        run_evolution(
            initial_program=start,
            evaluator=path,
            config=config,
            iterations=budget,
            output_dir=str(folder),
        )
    # OpenEvolve takes Ctrl-C and SIGTERM for a wish to end early, waits for a second one, and returns.
    if getattr(signal.getsignal(signal.SIGINT), "__name__", "") == "force_exit_handler":
        raise KeyboardInterrupt
