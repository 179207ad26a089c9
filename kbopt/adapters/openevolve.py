"""OpenEvolve's evaluator file over an Evaluator.

OpenEvolve loads an evaluator file in every one of its worker processes. One device must not be measured
on by many at once, so the file only asks: the Evaluator stays in the process that opened it, and answers on
a Unix socket.

    with Evaluator() as evaluator, evaluator_file(evaluator, reference_source) as path:
        openevolve.run_evolution(initial_program=source, evaluator=path, config=config)
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from openevolve.evaluation_result import EvaluationResult

from kbopt.core.errors import InfraError, UserError
from kbopt.core.scoring import score
from kbopt.core.types import Measured, outcome_name
from kbopt.library import Evaluator, kernel_source
from kbopt.proposers.answers import Malformed

_FILE = '''"""Asks the evaluator at {address} for verdicts; alive as long as `evaluator_file` is open."""

from kbopt.adapters.openevolve import ask


def evaluate(program_path):
    return ask({address!r}, bytes.fromhex({key!r}), program_path)
'''


@contextmanager
def evaluator_file(evaluator: Evaluator, reference_source: str) -> Iterator[Path]:
    """The path of an evaluator file for OpenEvolve; it answers until the context ends."""
    with tempfile.TemporaryDirectory(prefix="kbopt-openevolve-") as folder:
        address = str(Path(folder) / "socket")
        key = os.urandom(16)
        path = Path(folder) / "evaluator.py"
        path.write_text(_FILE.format(address=address, key=key.hex()))
        with Listener(address, family="AF_UNIX", authkey=key) as listener:
            thread = threading.Thread(
                target=_serve,
                args=(listener, evaluator, reference_source),
                name="kbopt-openevolve",
                daemon=True,
            )
            thread.start()
            try:
                yield path
            finally:
                # An empty request is the one way to wake a thread that waits for a connection.
                with Client(address, family="AF_UNIX", authkey=key) as goodbye:
                    goodbye.send_bytes(b"")
                thread.join()


def ask(address: str, key: bytes, program_path: str) -> EvaluationResult:
    """The verdict on a file, from the process that holds the device. Raises InfraError."""
    with Client(address, family="AF_UNIX", authkey=key) as connection:
        connection.send_bytes(json.dumps({"source": Path(program_path).read_text()}).encode())
        answer = json.loads(connection.recv_bytes())
    if "error" in answer:
        raise InfraError(answer["error"])
    return EvaluationResult(metrics=answer["metrics"], artifacts=answer["artifacts"])


def _serve(listener: Listener, evaluator: Evaluator, reference_source: str) -> None:
    while True:
        connection = listener.accept()
        asked = connection.recv_bytes()
        if not asked:
            connection.close()
            return
        # A thread each: builds of several programs overlap, and the Evaluator keeps the device to one.
        threading.Thread(
            target=_answer, args=(connection, json.loads(asked)["source"], evaluator, reference_source)
        ).start()


def _answer(connection: Connection, source: str, evaluator: Evaluator, reference_source: str) -> None:
    try:
        answer = _verdict(evaluator, reference_source, source)
    except (InfraError, UserError) as error:
        answer = {"error": str(error)}
    with suppress(ConnectionError), connection:
        connection.send_bytes(json.dumps(answer).encode())


def _verdict(evaluator: Evaluator, reference_source: str, text: str) -> dict[str, object]:
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
