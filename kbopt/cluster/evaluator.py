"""The one evaluator: joins duplicates, keeps results, batches, and shares the device fairly.

`EvaluationQueue` is plain asyncio and knows no Ray; `kbopt.cluster.actors` makes it one. Infrastructure
failures are retried here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace

from kbopt.cluster.fairness import FairShare
from kbopt.cluster.messages import Answer, EvaluatorStatus
from kbopt.core.costs import Rent
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.events import InfraFailed
from kbopt.core.outcomes import may_be_mended, outcome_name
from kbopt.core.ports import Backend, BackendStatus, Profiler
from kbopt.core.profile import Profiled, ProfileRequest
from kbopt.core.text import plural
from kbopt.store.cache import EvaluationCache, request_key

log = logging.getLogger(__name__)

FILL_S = 0.003
"""How long a batch that is not full waits for company before it goes to the device."""

PROFILE_SHARE = 4
"""Profiles are at most a quarter of what a backend holds at once. A device takes one at a time, so more than
a few would only hold threads of its service; a spool that travels answers what was asked before it left."""

MOST_PROFILES = 256
"""Profiles that are remembered, a few KiB each: those of the kernels that a search still improves."""

RETRY_DELAYS_S = (0.5, 2.0, 8.0, 30.0)
"""Pauses before the second and later attempts of a batch that the infrastructure lost."""


@dataclass(eq=False, slots=True)
class _Pending:
    search: str
    key: str
    request: EvalRequest
    answer: asyncio.Future[Answer]
    queued_at: float = field(default_factory=time.monotonic)


class EvaluationQueue:
    """Answers requests from many searches with one backend.

    A request that equals one in flight waits for the same answer; one that was answered before comes
    from the cache. A result is committed to the cache before anyone hears of it. A build that failed in an
    earlier session, and not for its source, is tried again: what the machine lacked may be there now.
    """

    def __init__(
        self, backend: Backend, cache: EvaluationCache, *, retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._retry_delays_s = retry_delays_s
        self._waiting: dict[str, deque[_Pending]] = {}
        self._shares = FairShare()
        self._num_in_flight = 0
        self._by_key: dict[str, asyncio.Future[Answer]] = {}
        self._answered: set[str] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[BackendStatus] | None = None
        self._profiles: dict[ProfileRequest, asyncio.Task[Profiled]] = {}
        self._profiling = asyncio.Semaphore(max(1, backend.max_in_flight // PROFILE_SHARE))
        self._by_outcome: Counter[str] = Counter()
        self._cached = self._joined = 0
        self._device_s = 0.0
        self._rent_taken: Rent | None = None
        self._started = time.monotonic()

    async def open(self) -> BackendStatus:
        """Start or find the device, once. After a `UserError` or `InfraError` a later call tries again."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._backend.open())
        return await asyncio.shield(self._opening)

    async def evaluate(self, search: str, request: EvalRequest, scope: str = "") -> Answer:
        """The answer for `request`, measured at most once however many ask within `scope`.

        Raises `InfraError` when all attempts were lost, `UserError` when the task cannot be scored.
        """
        key = request_key(request, (await self.open()).device, scope)
        known = self._cache.get(key)
        if known is not None and key not in self._answered and may_be_mended(known.outcome):
            self._cache.forget(key)
            known = None
        if known is not None:
            self._cached += 1
            return Answer(result=known, cached=True)
        answer = self._by_key.get(key)
        if answer is not None:
            self._joined += 1
            joined = await asyncio.shield(answer)
            return Answer(result=joined.result, cached=True)
        pending = _Pending(search, key, request, asyncio.get_running_loop().create_future())
        self._by_key[key] = pending.answer
        self._waiting.setdefault(search, deque()).append(pending)
        self._wake.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())
        return await asyncio.shield(pending.answer)

    async def profile(self, request: ProfileRequest) -> Profiled:
        """What limits a source, found out once however many ask. It is asked for once: an `InfraError` is its
        caller's. Raises `UserError` where the backend has no profiles, or the task cannot be scored.
        """
        await self.open()
        if not isinstance(self._backend, Profiler):
            raise UserError("this backend has no profiles: take them with --backend local or --backend spool")
        known = self._profiles.get(request)
        if known is None or (known.done() and (known.cancelled() or known.exception())):
            while len(self._profiles) >= MOST_PROFILES:
                self._profiles.pop(next(iter(self._profiles)))
            known = self._profiles[request] = asyncio.create_task(self._profiled(self._backend, request))
        return await asyncio.shield(known)

    async def _profiled(self, backend: Profiler, request: ProfileRequest) -> Profiled:
        async with self._profiling:
            return await backend.profile(request)

    async def take_rent(self) -> Rent | None:
        """What the device cost since this was last called, None for nothing; the caller has to pay it."""
        rent, taken = (await self._backend.status()).rent, self._rent_taken
        if rent is None or rent == taken:
            return None
        self._rent_taken = rent
        if taken is None:
            return rent
        return Rent(gpu=rent.gpu, seconds=rent.seconds - taken.seconds, usd=rent.usd - taken.usd)

    async def status(self) -> EvaluatorStatus:
        return EvaluatorStatus(
            backend=await self._backend.status(),
            queue_length=self._queue_length,
            in_flight=self._num_in_flight,
            evaluations=self._by_outcome.total(),
            by_outcome=dict(self._by_outcome),
            cached=self._cached,
            joined=self._joined,
            device_s=self._device_s,
            uptime_s=time.monotonic() - self._started,
        )

    async def close(self) -> None:
        tasks = [*self._batches, *self._profiles.values(), *([self._pump] if self._pump else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for answer in self._by_key.values():
            if not answer.done():
                answer.set_exception(InfraError("the evaluator was closed before it answered"))
        await self._backend.close()
        self._cache.close()

    @property
    def _queue_length(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def _run(self) -> None:
        while True:
            if not self._waiting or len(self._batches) >= self._backend.max_in_flight:
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._queue_length < self._backend.max_batch:
                await asyncio.sleep(FILL_S)
            batch = self._take()
            task = asyncio.create_task(self._answer(batch))
            self._batches.add(task)
            task.add_done_callback(self._batch_done)

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._wake.set()

    def _take(self) -> list[_Pending]:
        """The next batch: one request at a time from the search that has had the least of the device."""
        batch: list[_Pending] = []
        while self._waiting and len(batch) < self._backend.max_batch:
            search = self._shares.next_of({name: some[0].queued_at for name, some in self._waiting.items()})
            batch.append(self._waiting[search].popleft())
            if not self._waiting[search]:
                del self._waiting[search]
        self._num_in_flight += len(batch)
        return batch

    async def _answer(self, batch: list[_Pending]) -> None:
        """Whatever happens, each of `batch` gets its answer or the error."""
        try:
            answers = await self._judged(batch)
        except UserError as error:
            if len(batch) > 1:  # one task's fault must not fail the others of the batch
                await asyncio.gather(*(self._answer([pending]) for pending in batch))
                return
            self._fail(batch, error)
        except InfraError as error:
            self._fail(batch, error)
        except Exception as error:
            # The border of a batch: whoever waits for it would wait for ever.
            log.exception("a batch of %d failed", len(batch))
            self._fail(batch, InfraError(f"the evaluator failed: {type(error).__name__}: {error}"))
        else:
            for pending, answer in zip(batch, answers, strict=True):
                pending.answer.set_result(answer)
                self._settle(pending, answer.result.device_s)

    async def _judged(self, batch: list[_Pending]) -> list[Answer]:
        """The answers for `batch`, in its order; they are in the cache."""
        now = time.monotonic()
        waits_s = [now - pending.queued_at for pending in batch]
        results, failures = await self._attempt(batch)
        results = [_with_wait(result, wait_s) for result, wait_s in zip(results, waits_s, strict=True)]
        self._answered.update(pending.key for pending in batch)
        self._cache.put({pending.key: result for pending, result in zip(batch, results, strict=True)})
        waiting = self._queue_length
        rent = await self.take_rent()
        share = rent.share(len(batch)) if rent else None
        self._by_outcome.update(outcome_name(result.outcome) for result in results)
        self._device_s += sum(result.device_s for result in results)
        return [
            Answer(result=result, cached=False, waiting=waiting, failures=failures, rent=share)
            for result in results
        ]

    def _fail(self, batch: list[_Pending], error: UserError | InfraError) -> None:
        for pending in batch:
            pending.answer.set_exception(error)
            self._settle(pending, None)

    def _settle(self, pending: _Pending, device_s: float | None) -> None:
        self._shares.done(pending.search, device_s)
        self._num_in_flight -= 1
        self._by_key.pop(pending.key, None)

    async def _attempt(self, batch: list[_Pending]) -> tuple[list[Result], tuple[InfraFailed, ...]]:
        failures: list[InfraFailed] = []
        requests = [pending.request for pending in batch]
        for delay_s in (*self._retry_delays_s, None):
            try:
                results = await self._backend.evaluate(requests)
            except InfraError as error:
                failed = InfraFailed(what="evaluation", reason=str(error), attempt=len(failures) + 1)
                failures.append(failed)
                if delay_s is None:
                    raise InfraError(
                        f"{error} (given up after {plural(len(failures), 'attempt')})"
                    ) from error
                await asyncio.sleep(delay_s)
            else:
                return results, tuple(failures)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _with_wait(result: Result, wait_s: float) -> Result:
    """`result` with the time it waited for its batch counted as queueing."""
    return replace(result, seconds=replace(result.seconds, queue=result.seconds.queue + wait_s))
