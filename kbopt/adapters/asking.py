"""An evaluator file for optimizers that load one in processes of their own.

One device must not be measured on by many at once, so the file only asks: the Evaluator stays in the process
that opened it, and answers on a Unix socket.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.scoring import score
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
class Said:
    """A language model's answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why there is none: the device was lost, or the task cannot be scored."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Asks for a verdict on what a program's file holds."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Of a conversation with a language model, as the chat APIs have it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Asks the language model for the next message."""

    messages: tuple[Message, ...]


Question = Program | Conversation
Answer = Verdict | Said | NoAnswer
LONGEST_FOLDER = 77
"""Bytes. A socket's path has at most 107, of which 30 come after the folder for temporary files."""

Model = Callable[[Sequence[Mapping[str, str]]], str]
"""Answers a conversation, of messages with `role` and `content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where questions are answered: a Unix socket, and the key that its listener wants."""

    socket: str
    key: bytes

    def evaluator_file(self, text: str) -> Path:
        """Write `text` beside the socket. In it `ask_with` stands for the first two arguments of `ask`."""
        path = Path(self.socket).with_name("evaluator.py")
        path.write_text(text.replace("ask_with", f"{self.socket!r}, bytes.fromhex({self.key.hex()!r})"))
        return path


@contextmanager
def answering(evaluator: Judges, reference_source: str, model: Model | None = None) -> Iterator[Address]:
    """Answer questions about kernels of one task, and the `model`'s, until the context ends."""
    usual = tempfile.gettempdir()
    short = usual if len(os.fsencode(usual)) <= LONGEST_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="kbopt-adapter-", dir=short) as folder:
        address = Address(socket=str(Path(folder) / "socket"), key=os.urandom(16))
        with Listener(address.socket, family="AF_UNIX", authkey=address.key) as listener:
            answer = partial(_answer, evaluator, reference_source, model)
            thread = threading.Thread(
                target=_serve, args=(listener, answer), name="kbopt-adapter", daemon=True
            )
            thread.start()
            try:
                yield address
            finally:
                # An empty request is the one way to wake a thread that waits for a connection.
                with Client(address.socket, family="AF_UNIX", authkey=address.key) as goodbye:
                    goodbye.send_bytes(b"")
                thread.join()


@contextmanager
def asking_file(evaluator: Judges, reference_source: str, text: str) -> Iterator[Path]:
    """The path of a file with `text`, see `Address.evaluator_file`; it is answered until the context ends."""
    with answering(evaluator, reference_source) as address:
        yield address.evaluator_file(text)


def ask(socket: str, key: bytes, program_path: str) -> Verdict:
    """The verdict on a file, from the process that holds the device. Raises InfraError."""
    program = Path(program_path)
    address = Address(socket=socket, key=key)
    answer = _asked(address, lambda: Program(text=program.read_text(errors="replace")))
    if not isinstance(answer, Verdict):
        raise TypeError(f"an answer to a program is no {type(answer).__name__}")
    return answer


def ask_model(address: Address, messages: Iterable[Mapping[str, str]]) -> str:
    """The model's answer to a conversation. Raises InfraError."""
    asked = tuple(Message(role=m["role"], content=m["content"]) for m in messages)
    answer = _asked(address, lambda: Conversation(messages=asked))
    if not isinstance(answer, Said):
        raise TypeError(f"an answer to a conversation is no {type(answer).__name__}")
    return answer.text


def _asked(address: Address, question: Callable[[], Question]) -> Verdict | Said:
    """The answer. The address is tried first: where nobody answers, that is the error."""
    with Client(address.socket, family="AF_UNIX", authkey=address.key) as connection:
        connection.send_bytes(codec.dumps(question()).encode())
        answer: Answer = codec.loads(Answer, connection.recv_bytes())  # type: ignore[arg-type]
    if isinstance(answer, NoAnswer):
        raise InfraError(answer.reason)
    return answer


def _serve(listener: Listener, answer: Callable[[Connection, Question], None]) -> None:
    while True:
        connection = listener.accept()
        asked = connection.recv_bytes()
        if not asked:
            connection.close()
            return
        question: Question = codec.loads(Question, asked)  # type: ignore[arg-type]
        # A thread each: builds of several programs overlap, and the Evaluator keeps the device to one.
        threading.Thread(target=answer, args=(connection, question)).start()


def _answer(
    evaluator: Judges, reference_source: str, model: Model | None, connection: Connection, asked: Question
) -> None:
    answer: Answer
    try:
        if isinstance(asked, Program):
            answer = _verdict(evaluator, reference_source, asked.text)
        elif model is None:
            answer = NoAnswer(reason="there is no model behind this evaluator")
        else:
            answer = Said(text=model([{"role": m.role, "content": m.content} for m in asked.messages]))
    except (InfraError, UserError) as error:
        answer = NoAnswer(reason=str(error))
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
