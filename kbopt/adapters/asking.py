"""An evaluator file for optimizers that load one in processes of their own.

One device must not be measured on by many at once, so the file only asks: the Evaluator stays in the process
that opened it, and answers on a Unix socket.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.scoring import score
from kbopt.core.types import Measured, outcome_name
from kbopt.library import Judges, kernel_source
from kbopt.proposers.answers import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a program. `score` is the speedup, 0.0 for what does not work."""

    score: float
    is_measured: bool
    outcome: str
    feedback: str

    @property
    def metrics(self) -> dict[str, float]:
        """As OpenEvolve and its kin score a program: by `combined_score`."""
        return {"combined_score": self.score, "measured": float(self.is_measured)}

    @property
    def artifacts(self) -> dict[str, str]:
        """What a model is shown of a program that was tried."""
        return {"outcome": self.outcome, "feedback": self.feedback}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoVerdict:
    """Why there is none: the device was lost, or the task cannot be scored."""

    reason: str


Answer = Verdict | NoVerdict


@contextmanager
def asking_file(evaluator: Judges, reference_source: str, text: str) -> Iterator[Path]:
    """The path of a file with `text`, where `ask_with` stands for the arguments of `ask` before the program.

    What the file asks is answered until the context ends.
    """
    with tempfile.TemporaryDirectory(prefix="kbopt-adapter-") as folder:
        address, key = str(Path(folder) / "socket"), os.urandom(16)
        path = Path(folder) / "evaluator.py"
        path.write_text(text.replace("ask_with", f"{address!r}, bytes.fromhex({key.hex()!r})"))
        with Listener(address, family="AF_UNIX", authkey=key) as listener:
            thread = threading.Thread(
                target=_serve, args=(listener, evaluator, reference_source), name="kbopt-adapter", daemon=True
            )
            thread.start()
            try:
                yield path
            finally:
                # An empty request is the one way to wake a thread that waits for a connection.
                with Client(address, family="AF_UNIX", authkey=key) as goodbye:
                    goodbye.send_bytes(b"")
                thread.join()


def ask(address: str, key: bytes, program_path: str) -> Verdict:
    """The verdict on a file, from the process that holds the device. Raises InfraError."""
    with Client(address, family="AF_UNIX", authkey=key) as connection:
        connection.send_bytes(b"program " + Path(program_path).read_bytes())
        answer: Answer = codec.loads(Answer, connection.recv_bytes())  # type: ignore[arg-type]
    if isinstance(answer, NoVerdict):
        raise InfraError(answer.reason)
    return answer


def _serve(listener: Listener, evaluator: Judges, reference_source: str) -> None:
    while True:
        connection = listener.accept()
        asked = connection.recv_bytes()
        if not asked:
            connection.close()
            return
        source = asked.removeprefix(b"program ").decode(errors="replace")
        # A thread each: builds of several programs overlap, and the Evaluator keeps the device to one.
        threading.Thread(target=_answer, args=(connection, source, evaluator, reference_source)).start()


def _answer(connection: Connection, source: str, evaluator: Judges, reference_source: str) -> None:
    answer: Answer
    try:
        answer = _verdict(evaluator, reference_source, source)
    except (InfraError, UserError) as error:
        answer = NoVerdict(reason=str(error))
    with suppress(ConnectionError), connection:
        connection.send_bytes(codec.dumps(answer).encode())


def _verdict(evaluator: Judges, reference_source: str, text: str) -> Verdict:
    source = kernel_source(text)
    if isinstance(source, Malformed):
        return Verdict(score=0.0, is_measured=False, outcome="compile_failed", feedback=source.reason)
    result = evaluator.evaluate(reference_source, source)
    outcome = result.outcome
    return Verdict(
        score=score(outcome),
        is_measured=isinstance(outcome, Measured),
        outcome=outcome_name(outcome),
        feedback=result.feedback,
    )
