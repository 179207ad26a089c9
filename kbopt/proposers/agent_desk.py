"""The desk of one brief: where its agent has kernels judged, within a budget, and hands one in.

A port of the loopback with a token of its own. What the agent starts as its MCP server (`kbopt.agents.brief`)
speaks to it in lines of JSON. Whoever comes without the token, like another brief's agent, is sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from kbopt.core import codec
from kbopt.core.errors import InfraError
from kbopt.core.outcomes import Measured, outcome_name
from kbopt.core.ports import Attempts, Declined
from kbopt.core.profile import NotProfiled, Profile
from kbopt.core.proposals import MAX_NOTE_CHARS, Brief, Trial
from kbopt.core.workloads import shown_source

MAX_KERNEL_BYTES = 256 * 2**10
"""UTF-8 bytes of one kernel. The largest kernel that ships with kbopt has 8 KiB, those that agents write have
tens; the journal and the page keep each of them whole."""

MAX_LINE = 8 * MAX_KERNEL_BYTES
"""Bytes of one call: JSON spells a byte of a kernel with six at most (\\u0000), and a note is short."""

MAX_AT_ONCE = 4
"""Evaluations of one agent at a time: the evaluator shares one device, and other agents wait behind them."""

MAX_CALLS = 1_000
"""Calls of one agent, refused ones too: ten for each of a hundred evaluations, and a loop gone wild ends."""

MAX_CONNECTIONS = 16
"""Of one desk at a time. An agent needs one, and one more for each agent that it starts itself."""

MAX_STRANGERS = 16
"""Connections of one desk that have not said the token yet. Any program of the machine can open them; beyond
this number the oldest is closed, as its own agent says the token at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a desk is. The file with it is for the agent's MCP server alone."""

    port: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """`client` is how the agent's client calls itself."""

    source: str
    note: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Hand in what was judged as `candidate`; the last one counts."""

    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Ask how the brief stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """Ask what limits what was measured as `candidate`."""

    candidate: str


Call = Evaluate | Submit | Explain | Look


@dataclass(frozen=True, slots=True, kw_only=True)
class BriefState:
    """How the brief stands. `trials` are the agent's, oldest first; `submitted` is empty or one's id."""

    task: str
    source: str
    trials: tuple[Trial, ...]
    submitted: str
    evaluations_left: int
    minutes_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to `Evaluate`. `cached` where it cost no evaluation."""

    trial: Trial
    cached: bool
    state: BriefState


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a call was not done, and what to do instead."""

    reason: str


Reply = BriefState | Verdict | Profile | Refused


class Desk:
    """Serves one brief from `open` to `close`. For one event loop.

    `limit` is the number of different kernels that may be judged, those of `earlier` among them; `seconds`
    runs from `open`. `on_submit` is called before a submission is confirmed.
    """

    def __init__(
        self,
        brief: Brief,
        attempts: Attempts,
        *,
        earlier: tuple[Trial, ...],
        limit: int,
        seconds: float,
        on_submit: Callable[[str], None],
    ) -> None:
        self._brief = brief
        self._attempts = attempts
        self._limit = limit
        self._seconds = seconds
        self._on_submit = on_submit
        self._trials = {trial.candidate.id: trial for trial in earlier}
        self._sources = {trial.candidate.source for trial in earlier}
        self._token = secrets.token_hex(16)
        self._connections: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._calls = self._under_way = self.sent_away = 0
        self.submitted = ""

    async def open(self) -> Place:
        self._ends_at = time.monotonic() + self._seconds
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, limit=MAX_LINE, backlog=MAX_STRANGERS
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return Place(port=port, token=self._token)

    async def close(self) -> None:
        """Nobody is served any more; what is being judged is judged and journalled all the same."""
        self._server.close()
        connections = [*self._connections, *self._strangers]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @property
    def trials(self) -> tuple[Trial, ...]:
        return tuple(self._trials.values())

    @property
    def state(self) -> BriefState:
        return BriefState(
            task=self._brief.task.name,
            source=shown_source(self._brief.task.source),
            trials=self.trials,
            submitted=self.submitted,
            evaluations_left=max(self._limit - len(self._sources), 0),
            minutes_left=max(self._ends_at - time.monotonic(), 0.0) / 60,
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._strangers[task] = None
        if len(self._strangers) > MAX_STRANGERS:
            next(iter(self._strangers)).cancel()
        try:
            # A client that went away, or a line that is too long: there is nobody to answer.
            with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
                if await self._knows_the_token(reader, writer, task):
                    await self._serve(reader, writer)
        finally:
            self._strangers.pop(task, None)
            self._connections.discard(task)
            writer.close()

    async def _knows_the_token(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """Whether the other end is the agent, whose connections are counted from here on."""
        token = (await reader.readline()).strip()
        if not hmac.compare_digest(token, self._token.encode()):
            self.sent_away += 1
            await _say(
                writer, Refused(reason="this is not the token of this brief: its agent alone is served")
            )
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            return False
        del self._strangers[task]
        self._connections.add(task)
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await _say(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> Reply:
        self._calls += 1
        if self._calls > MAX_CALLS:
            return Refused(
                reason=f"this is call {self._calls} of this session, and {MAX_CALLS} are answered. What was "
                "submitted before counts; end now."
            )
        try:
            call: Call = codec.loads(Call, line)  # type: ignore[arg-type]
        except codec.CodecError as error:
            return Refused(reason=f"not a call: {error}")
        match call:
            case Evaluate():
                return await self._evaluate(call)
            case Submit():
                return self._submit(call.candidate)
            case Explain():
                return await self._explain(call.candidate)
            case Look():
                return self.state

    async def _evaluate(self, call: Evaluate) -> Reply:
        size = len(call.source.encode())
        if size > MAX_KERNEL_BYTES:
            return Refused(reason=f"the kernel has {size:,} bytes; at most {MAX_KERNEL_BYTES:,} are judged")
        if call.source not in self._sources and len(self._sources) >= self._limit:
            return Refused(
                reason=f"the budget of this session is used up: all {self._limit} evaluations (--agent-evals "
                f"{self._limit}). No more is judged; call best, then submit."
            )
        if self._under_way >= MAX_AT_ONCE:
            return Refused(
                reason=f"{self._under_way} kernels are being judged, at most {MAX_AT_ONCE} at a time. Wait "
                "for an answer."
            )
        new = call.source not in self._sources
        self._sources.add(call.source)
        self._under_way += 1
        try:
            judged = await self._attempts.judge(
                self._brief.id,
                call.source,
                proposer=call.client,
                note=" ".join(call.note.split())[:MAX_NOTE_CHARS],
            )
        except InfraError as error:
            return Refused(reason=f"the machine failed, the kernel is not to blame: {error}")
        finally:
            self._under_way -= 1
        if isinstance(judged, Declined):
            if new:
                self._sources.discard(call.source)
            return Refused(reason=f"{judged.reason}. No more is judged; call best, then submit.")
        self._trials[judged.trial.candidate.id] = judged.trial
        return Verdict(trial=judged.trial, cached=judged.cached, state=self.state)

    async def _explain(self, candidate: str) -> Reply:
        trial = self._measured(candidate, "profiled")
        if isinstance(trial, Refused):
            return trial
        try:
            found = await self._attempts.profile(trial.candidate)
        except InfraError as error:
            return Refused(reason=f"the machine failed, the kernel is not to blame: {error}")
        if isinstance(found, NotProfiled):
            return Refused(reason=f"{candidate} could not be profiled: {found.reason}")
        return found

    def _submit(self, candidate: str) -> Reply:
        trial = self._measured(candidate, "submitted")
        if isinstance(trial, Refused):
            return trial
        self._on_submit(candidate)
        self.submitted = candidate
        return self.state

    def _measured(self, candidate: str, what: str) -> Trial | Refused:
        """The trial of a kernel that was measured, or why there is none."""
        trial = self._trials.get(candidate)
        if trial is None:
            known = ", ".join(self._trials) or "none was judged yet"
            return Refused(reason=f"unknown candidate {candidate[:100]!r}. Judged in this session: {known}.")
        outcome = trial.results[0].outcome
        if not isinstance(outcome, Measured):
            return Refused(
                reason=f"{candidate} is {outcome_name(outcome)}: only a kernel that was measured can be "
                f"{what}. Call history for those, or best for the fastest."
            )
        return trial


async def _say(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(codec.dumps(reply).encode() + b"\n")
    await writer.drain()
