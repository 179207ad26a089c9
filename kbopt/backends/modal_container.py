"""The work of a Modal container: it collects a batch's pages, evaluates it, and returns the results in pages.

This module does not import Modal. It evaluates with the same service as the local backend.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from kbopt.backends.modal_wire import ContainerInfo, Message, WireError, pack, unpack
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.evaluation.client import ServiceClient

V = TypeVar("V")

MAX_REMEMBERED_RESULTS = 512
"""Results that are kept for drivers that start again."""
MAX_LOSSES_IN_A_ROW = 3
"""Batches lost in a row after which the machine counts as broken, as when a GPU has fallen off the bus."""

MAX_OPEN_PAGES = 64
"""Batches whose pages are kept at most, in each direction. A driver that died leaves some behind."""


class ModalContainer:
    """Serves batches from any number of drivers with one evaluation service.

    Results are kept for their owner. So a driver that starts again after a crash, or whose result Modal
    dropped, gets the kept result, or joins the running evaluation, and nothing is evaluated twice.
    """

    def __init__(self, *, device: str, state_dir: Path) -> None:
        self._service = ServiceClient(device=device, state_dir=state_dir)
        self._device = self._boot = self._isolation = self._starter = self._failure = ""
        self._created = self._last_used = time.monotonic()
        self._num_evaluations = self._losses_in_a_row = 0
        self._results: dict[str, asyncio.Task[Result]] = {}
        self._incoming: dict[str, dict[int, bytes]] = {}
        self._outgoing: dict[str, list[bytes]] = {}

    @property
    def broken(self) -> bool:
        """Whether the service is lost, so that a new container has to take over."""
        return bool(self._failure)

    async def open(self) -> None:
        """Start the service. A failure is kept for later answers, because Modal does not report it."""
        try:
            info = await self._service.open()
        except UserError as error:  # There is no GPU, which is the machine's fault here.
            self._failure = f"it has no usable GPU: {error}"
        except InfraError as error:
            self._failure = str(error)
        if self._failure:
            self._boot = uuid.uuid4().hex[:12]
            return
        self._device, self._boot, self._isolation = info.device, info.boot, info.isolation
        self._last_used = time.monotonic()

    async def close(self) -> None:
        await self._service.close()

    def describe(self, owner: str, *, failure: str = "", user_error: str = "") -> ContainerInfo:
        self._starter = self._starter or owner
        now = time.monotonic()
        return ContainerInfo(
            boot=self._boot,
            device=self._device,
            starter=self._starter,
            age_s=now - self._created,
            idle_s=now - self._last_used,
            num_evaluations=self._num_evaluations,
            isolation=self._isolation,
            failure=failure or self._failure,
            user_error=user_error,
            phases=self._service.phases,
        )

    async def run_batch(self, message: Message) -> Message:
        """Take one page of a batch. After the last one, evaluate and return the results' first page."""
        owner, call = message["owner"], message["call"]
        info = self.describe(owner)
        if info.failure:
            return answer(info)
        pages = _keep(self._incoming, call, {})
        pages[message["page"]] = message["data"]
        if message["page"] < message["pages"] - 1:
            return answer(info)
        del self._incoming[call]
        try:
            # A missing page went to a container that is gone. The driver then sends the whole batch again.
            requests = unpack(tuple[EvalRequest, ...], [pages[index] for index in range(message["pages"])])
        except (KeyError, WireError) as error:
            raise InfraError(f"batch {call} arrived incomplete: {error!r}") from None
        return await self._answer_batch(owner, call, requests)

    def read_page(self, message: Message) -> Message:
        """Return a further page of an answer. Raises InfraError if this container does not have it."""
        pages = self._outgoing.get(message["call"], [])
        if message["page"] >= len(pages):
            raise InfraError(f"this container has no page {message['page']} of batch {message['call']}")
        return answer(self.describe(message["owner"]), [pages[message["page"]]])

    async def _answer_batch(self, owner: str, call: str, requests: Sequence[EvalRequest]) -> Message:
        tasks = [self._evaluation(owner, request) for request in requests]
        # If the call is cancelled, its evaluations go on, and the driver's next attempt joins them.
        done = await asyncio.gather(*map(asyncio.shield, tasks), return_exceptions=True)
        self._last_used = time.monotonic()
        results: list[Result] = []
        for outcome in done:
            if isinstance(outcome, InfraError):
                return answer(self.describe(owner, failure=self._lost(outcome)))
            if isinstance(outcome, UserError):
                return answer(self.describe(owner, user_error=str(outcome)))
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        self._losses_in_a_row = 0
        pages = pack(tuple(results))
        if len(pages) > 1:
            _keep(self._outgoing, call, pages)
        return answer(self.describe(owner), pages)

    def _lost(self, error: InfraError) -> str:
        """Return why a batch was lost, and mark the container as broken if the next one would be lost too."""
        self._losses_in_a_row += 1
        if not self._service.alive:
            self._failure = f"the evaluation service was lost: {error}"
        elif self._losses_in_a_row >= MAX_LOSSES_IN_A_ROW:
            self._failure = f"{self._losses_in_a_row} batches in a row were lost: {error}"
        return self._failure or f"the batch was lost: {error}"

    def _evaluation(self, owner: str, request: EvalRequest) -> asyncio.Task[Result]:
        key = hashlib.sha256(f"{owner}\n{codec.dumps(request)}".encode()).hexdigest()
        known = self._results.get(key)
        if known is not None and not (known.done() and (known.cancelled() or known.exception())):
            return known
        task = asyncio.create_task(self._service.evaluate(request))
        self._results[key] = task
        self._num_evaluations += 1
        finished = [key for key, task in self._results.items() if task.done()]
        for key in finished[: len(self._results) - MAX_REMEMBERED_RESULTS]:
            del self._results[key]
        return task


def answer(info: ContainerInfo, pages: Sequence[bytes] = ()) -> Message:
    """Return a message with a head, the first page of the body (b"" for none), and the number of pages."""
    return {"head": codec.encode(info), "page": pages[0] if pages else b"", "pages": len(pages)}


def _keep(entries: dict[str, V], call: str, fresh: V) -> V:
    """Return the entry of `call`, at first `fresh`. Remove the oldest entries beyond `MAX_OPEN_PAGES`."""
    value = entries.setdefault(call, fresh)
    while len(entries) > MAX_OPEN_PAGES:
        del entries[next(iter(entries))]
    return value
