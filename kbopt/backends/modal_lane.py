"""A driver's handle on one Modal container. It spawns calls, waits with deadlines, and cancels calls."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import modal
from modal.exception import Error as ModalError

from kbopt.backends.modal_account import bounded, modal_errors, other_gpus
from kbopt.backends.modal_deploy import CLASS_NAME
from kbopt.backends.modal_outputs import read_output
from kbopt.backends.modal_wire import ContainerInfo, Message, WireError, pack, unpack
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.ports import BackendState, Phase

PAGE_TIMEOUT_S = 60.0
"""Seconds for a call that does not evaluate: it moves a page, or asks about the state."""

BATCH_GRACE_S = 60.0
"""Seconds that a batch may take beyond the limits of its evaluations, which the service enforces itself."""

CANCEL_TIMEOUT_S = 5.0
KNOWN_S = 10.0
"""Seconds for which an answer tells in which phases a container's other requests are: a few evaluations."""
FIRST_LOOK_S = 0.5
"""Seconds before the first look at Modal's statistics while a container starts. Later looks are rarer."""


@dataclass(eq=False, slots=True)
class Lane:
    """The container of one GPU type and lane name. `owner` names the driver to the container.

    Every `poll_s` seconds a wait checks Modal's statistics and the deadlines. The container stays up, and
    costs money, for `warm_s` seconds after its last call.
    """

    gpu: str
    name: str
    owner: str
    start_timeout_s: float
    poll_s: float
    warm_s: float
    state: BackendState = "starting"
    detail: str = ""
    info: ContainerInfo | None = None
    num_in_flight: int = 0
    cold_boots: dict[str, None] = field(default_factory=dict)
    _held_s: float = 0.0
    _counted_until: float = 0.0
    _answered: float = 0.0
    _born: float = 0.0
    _boot: str = ""
    _replaced: str = ""
    _app: str = ""
    _container: Any = None

    def attach(self, app: str) -> None:
        """Refer to the class of a deployed app. This does not call Modal yet."""
        self._app = app
        self._container = modal.Cls.from_name(app, CLASS_NAME).with_options(gpu=self.gpu)(lane=self.name)

    @property
    def age_s(self) -> float:
        """The age of the container in seconds, or 0 if none has answered."""
        return time.monotonic() - self._born if self.info else 0.0

    @property
    def phases(self) -> Mapping[Phase, int]:
        """The requests in each phase by an answer that is `KNOWN_S` old at most, else nothing."""
        is_known = self.info and self.num_in_flight and time.monotonic() - self._answered < KNOWN_S
        return self.info.phases if self.info and is_known else {}

    def held_s(self) -> float:
        """Return the seconds for which this driver has held this container or earlier ones.

        They begin when the container starts for the driver's first call, or with that call if it was up
        already. The time between calls counts up to the warm time.
        """
        if self.info is not None:
            now = time.monotonic()
            until = now if self.num_in_flight else min(now, self._answered + self.warm_s)
            self._held_s += max(0.0, until - self._counted_until)
            self._counted_until = max(until, self._counted_until)
        return self._held_s

    def let_go(self) -> None:
        """Stop holding the container. It stays warm for other drivers."""
        self.held_s()
        self.info = None

    async def open(self) -> None:
        """Start the container unless it is up."""
        await self.call("describe", {"owner": self.owner}, limit_s=PAGE_TIMEOUT_S)

    async def current_stats(self) -> modal.types.FunctionCurrentStats:
        """Return the backlog and the number of containers, without starting one."""
        async with modal_errors():
            return await bounded(self._container.describe.get_current_stats.aio())

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        """Return the results in the order of `requests`. Raises InfraError if any was lost."""
        self.num_in_flight += 1
        try:
            return await self._evaluate(requests)
        finally:
            self.num_in_flight -= 1

    async def _evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        pages = pack(tuple(requests))
        message = {"owner": self.owner, "call": uuid.uuid4().hex, "pages": len(pages)}
        for index, data in enumerate(pages[:-1]):
            await self.call("run_batch", {**message, "page": index, "data": data}, limit_s=PAGE_TIMEOUT_S)
        limit_s = BATCH_GRACE_S + sum(r.protocol.compile_timeout_s + r.protocol.timeout_s for r in requests)
        last = {**message, "page": len(pages) - 1, "data": pages[-1]}
        reply = await self.call("run_batch", last, limit_s=limit_s)
        answer = [reply["page"]]
        for index in range(1, reply["pages"]):
            further = await self.call("read_page", {**message, "page": index}, limit_s=PAGE_TIMEOUT_S)
            answer.append(further["page"])
        try:
            results = unpack(tuple[Result, ...], answer)
        except WireError as error:
            raise InfraError(f"the container's answer cannot be read: {error}") from None
        if len(results) != len(requests):
            raise InfraError(f"the container answered {len(results)} of {len(requests)} requests")
        return list(results)

    async def call(self, method: str, message: Message, *, limit_s: float) -> Message:
        """Call the container and return its answer. It may take `limit_s` seconds once the container is up.

        Raises InfraError after the deadlines and if the container is lost or says that it is broken, and
        UserError for what the user has to change. The call is cancelled unless it succeeds.
        """
        function = getattr(self._container, method)
        spawned = time.monotonic()
        async with modal_errors():
            call = await bounded(function.spawn.aio(message))
            answered = False
            try:
                reply = await self._wait(function, call, limit_s)
                answered = True
            finally:
                if not answered:
                    with contextlib.suppress(ModalError, OSError, TimeoutError):
                        await asyncio.wait_for(call.cancel.aio(), CANCEL_TIMEOUT_S)
        self._learn(reply, spawned)
        return reply

    async def _wait(self, function: Any, call: modal.FunctionCall[Any], limit_s: float) -> Message:
        waiting_s = running_s = 0.0
        looked = time.monotonic()
        while True:
            # A user waits while a container starts, and should hear soon if none is free.
            soon_s = self.poll_s if self.info else min(self.poll_s, FIRST_LOOK_S + waiting_s + running_s)
            reply = await read_output(call, soon_s)
            if reply is not None:
                return reply
            stats = await bounded(function.get_current_stats.aio())
            passed_s, looked = time.monotonic() - looked, time.monotonic()
            if stats.num_total_runners == 0:
                waiting_s += passed_s
                self._show_waiting(waiting_s, stats.backlog)
            else:
                running_s += passed_s
                self._show_running(running_s)
            start_s = 0.0 if self.info else self.start_timeout_s
            if waiting_s > self.start_timeout_s:
                raise self._failed(
                    self.detail + f" Gave up after --start-timeout {self.start_timeout_s:g} s."
                )
            if running_s > limit_s + start_s or (not self.info and waiting_s + running_s > limit_s + start_s):
                raise self._failed(
                    f"the {self.gpu} container runs but has not answered for {running_s:.0f} s; "
                    f"`modal app logs {self._app}` shows why"
                )

    def _show_waiting(self, waiting_s: float, backlog: int) -> None:
        self._counted_until = time.monotonic()  # No container is up, so nothing costs money.
        self.state = "waiting"
        self.detail = (
            f"no {self.gpu} container for {waiting_s:.0f} s ({backlog} calls wait): Modal has none free, or "
            f"it fails at its start. Other GPUs to try: {', '.join(other_gpus(self.gpu))}."
        )

    def _show_running(self, running_s: float) -> None:
        if self.info is None:
            self.state, self.detail = (
                "starting",
                f"the {self.gpu} container has been starting for {running_s:.0f} s",
            )

    def _failed(self, reason: str) -> InfraError:
        self.let_go()
        self.state, self.detail = "failed", reason
        return InfraError(reason)

    def _learn(self, reply: Message, spawned: float) -> None:
        """Note what an answer's head says about the container. `spawned` is the time of the call.

        Raises InfraError or UserError if the head names a failure.
        """
        try:
            info = codec.decode(ContainerInfo, reply["head"])
        except (KeyError, codec.CodecError) as error:
            raise InfraError(f"the container's answer cannot be read: {error!r}") from None
        now = time.monotonic()
        replaced, self._boot = self._boot, info.boot
        if replaced not in ("", info.boot):
            self._replaced = f"it replaced container {replaced}"
        if info.starter == self.owner:
            self.cold_boots[info.boot] = None
        if self.info is None or self.info.boot != info.boot:
            self.held_s()
            self._counted_until = max(self._counted_until, now - info.age_s, spawned)
        self.info = info
        self._answered, self._born = now, now - info.age_s
        if info.failure:
            raise self._failed(f"container {info.boot} on {self.gpu}: {info.failure}")
        self.state, self.detail = "warm", "; ".join(filter(None, (self._replaced, info.isolation)))
        if info.user_error:
            raise UserError(info.user_error)
