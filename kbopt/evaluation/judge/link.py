"""The judge's connection to one worker: requests and answers, pauses, and a budget of seconds.

Time counts only while the judge waits for the worker, so a slow reference does not use up the candidate's
budget.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kbopt.evaluation.judge.replies import reply_of
from kbopt.evaluation.messages import Raised, SourceRefused
from kbopt.evaluation.sandbox import init_process
from kbopt.evaluation.transport.channel import Channel, ChannelClosed, WireError
from kbopt.evaluation.transport.untrusted import CandidateForged, failure_in
from kbopt.evaluation.worker_messages import Request, ToWorker

T = TypeVar("T")

_REPLY_LIMIT_BYTES = 4 * 2**20
"""Bytes of one message of a worker at most, so that a candidate cannot fill the judge's memory."""


class CandidateRaised(Exception):
    """The candidate raised an exception named `kind`. `frames` are the lines of the candidate's source."""

    def __init__(self, raised: Raised) -> None:
        super().__init__(str(raised))
        self.kind = raised.kind
        self.frames = raised.frames


class CandidateDied(Exception):
    """The worker has ended, or its init process does not answer as it should."""


class SourceRejected(Exception):
    """The source defines no model."""


class OutOfTime(Exception):
    """The budget is used up."""


class Link:
    """A connection to a worker, which may take `budget_s` seconds in all and has taken `busy_s`."""

    def __init__(self, sock: socket.socket, control_fd: int, budget_s: float, spin_s: float = 0.0) -> None:
        # Descriptors are not accepted: a candidate could use up the number that the judge may have open.
        self._channel = Channel(sock, _REPLY_LIMIT_BYTES, max_fds=0)
        self._channel.spin_s = spin_s
        self._control_fd = control_fd
        self.budget_s = budget_s
        self.busy_s = 0.0
        self._abandoned: set[int] = set()

    def ask(self, request: ToWorker, kind: type[T], fds: tuple[int, ...] = ()) -> T:
        """Send a request and return its answer. Raises the exceptions above and CandidateForged."""
        answer: T = reply_of(kind, self.receive(self.send(request, fds)))
        return answer

    def send(self, request: ToWorker, fds: tuple[int, ...] = ()) -> int:
        """Send a request and return its number, which is in its answers."""
        number = secrets.randbits(62)
        with self._awaited():
            self._channel.send(Request(id=number, content=request), fds)
        return number

    @contextmanager
    def asking(self, request: ToWorker) -> Iterator[int]:
        """Send a request and yield its number, which is in its answers.

        If the context ends with an exception, later answers to this request are dropped, so that the worker
        can be asked again.
        """
        number = self.send(request)
        try:
            yield number
        except BaseException:
            self._abandoned.add(number)
            raise

    def answers_within(self, patience_s: float) -> bool:
        """Return whether there is something to `receive` within `patience_s` seconds."""
        with self._awaited():
            return self._channel.is_readable_within(min(patience_s, self._left_s))

    def receive(self, number: int) -> Any:
        """Return the content of the next answer, for `judge.replies` to check.

        Raises CandidateForged if it is not to the request of that number.
        """
        reply = self._next()
        while reply.get("id") != number and self._is_abandoned(reply.get("id")):
            reply = self._next()
        if reply.get("id") != number:
            raise CandidateForged("an answer to another request than the one that was made")
        content = reply.get("content")
        match failure_in(content):
            case Raised() as raised:
                raise CandidateRaised(raised)
            case SourceRefused(reason=reason):
                raise SourceRejected(reason)
        return content

    def _next(self) -> dict[str, object]:
        with self._awaited():
            return self._channel.receive_json(self._left_s)

    def _is_abandoned(self, number: object) -> bool:
        return isinstance(number, int) and number in self._abandoned

    @contextmanager
    def _awaited(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except TimeoutError:
            raise OutOfTime from None
        except ChannelClosed:
            raise CandidateDied from None
        except WireError as error:
            raise CandidateForged(str(error)) from None
        finally:
            self.busy_s += time.perf_counter() - started

    @property
    def _left_s(self) -> float:
        return max(0.01, self.budget_s - self.busy_s)

    def pause(self) -> None:
        self._command(init_process.STOP)

    def hold(self) -> tuple[int, bool]:
        """Stop every process and wait until all have stopped.

        Return how many processes were started and have ended so far, and whether all others have stopped.
        """
        return self._command(init_process.HOLD)

    def stands(self) -> bool:
        """Return whether no process has run since `hold`."""
        return self._command(init_process.LOOK)[1]

    def resume(self) -> None:
        with self.resumed():
            pass

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Resume every process. Whether that was done is known at the end of the context."""
        self._tell(init_process.CONTINUE)
        try:
            yield
        finally:
            self._told(init_process.CONTINUE)

    def _command(self, command: bytes) -> tuple[int, bool]:
        self._tell(command)
        return self._told(command)

    def _tell(self, command: bytes) -> None:
        try:
            os.write(self._control_fd, command)
        except OSError:
            raise CandidateDied from None

    def _told(self, command: bytes) -> tuple[int, bool]:
        try:
            answer = os.read(self._control_fd, init_process.REPLY.size)
        except OSError:
            raise CandidateDied from None
        if len(answer) != init_process.REPLY.size or answer[:1] != command:
            raise CandidateDied
        _, num_gone, holds = init_process.REPLY.unpack(answer)
        return num_gone, holds

    def close(self) -> None:
        self._channel.close()
        os.close(self._control_fd)
