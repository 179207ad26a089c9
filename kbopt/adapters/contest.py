"""Searches by other projects' optimizers, as runs of kbopt: by the same judge, model, budgets and verdict.

The optimizer runs in the calling thread and asks for verdicts and for the model's answers. Each kernel goes
into the journal of a run, whose best ones are measured once more at the end, as those of every run.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import signal
import threading
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from kbopt.agents.run import AgentRun, settings
from kbopt.bench import has_ended
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.cluster.messages import Failure
from kbopt.compose.backends import open_backend, prepare_backend
from kbopt.compose.checks import check
from kbopt.config import RunConfig
from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import Result
from kbopt.core.settings import Guest
from kbopt.proposers.litellm_service import LiteLLMService
from kbopt.proposers.models import Unanswerable, parse_models
from kbopt.proposers.pool import ModelPool
from kbopt.store.cache import EvaluationCache
from kbopt.sweep import SweepConfig

T = TypeVar("T")

GIVE_UP_AFTER_S = 600.0
"""Seconds of failures after which no model is believed to answer any more: what `LLMProposer` allows."""


class Spent(InfraError):
    """The search's budget is used up: what was found by then is its answer."""


class Contestant:
    """What an optimizer may ask while it searches: an evaluator of one run, and the model. For any thread."""

    def __init__(self, name: str, run: AgentRun, models: ModelPool, loop: asyncio.AbstractEventLoop) -> None:
        self.failure: Failure | None = None
        self._name = name
        self._run = run
        self._models = models
        self._loop = loop
        self._usage: list[Usage] = []
        self._lock = threading.Lock()
        self._known: dict[str, Result] = {}
        self._is_spent = False
        self._num_asked = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing new will be judged."""
        limit = self._run.config.settings.budget.evaluations
        is_used = limit is not None and self._run.num_evaluations >= limit
        return self._is_spent or is_used or self.failure is not None

    def evaluate(self, reference_source: str, candidate_source: str, *, repeat: int = 0) -> Result:
        """The verdict on a kernel, journalled; one that was judged before costs nothing. Raises `Spent` once
        the budget is used up, `UserError` for a task that cannot be scored, `InfraError`.
        """
        try:
            return _wait(self._judged(candidate_source), self._loop)
        except (InfraError, UserError) as error:
            self.failed(error)
            raise

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The model's answer, empty where it gives none. Raises as `evaluate` does."""
        with self._lock:
            self._num_asked += 1
            number = self._num_asked
        if self.is_over:
            raise Spent("the search is over")
        seed = zlib.crc32(f"{self._run.config.settings.seed} {number}".encode())
        try:
            reply = _wait(
                self._models.complete(
                    [dict(message) for message in messages], seed=seed, on_failure=lambda *_: None
                ),
                self._loop,
            )
        except Unanswerable:
            return ""
        except (InfraError, UserError) as error:
            self.failed(error)
            raise
        with self._lock:
            self._usage.append(reply.usage)
        return reply.text

    def failed(self, error: InfraError | UserError) -> None:
        """Keep the first error that is more than the end of the budget: the optimizer may not tell of it."""
        if isinstance(error, Spent) or self.failure is not None:
            return
        kind: Literal["user", "infra"] = "user" if isinstance(error, UserError) else "infra"
        self.failure = Failure(kind=kind, message=str(error))

    def settle(self) -> None:
        """Account for what was paid for answers without a kernel. On the loop."""
        usage = self._taken()
        if usage:
            self._run.pay(f"{self._name} ended without a kernel from these answers", usage)

    async def _judged(self, source: str) -> Result:
        if source in self._known:
            return self._known[source]
        if self._is_spent:
            raise Spent("the search is over")
        usage = self._taken()
        try:
            ready = self._run.propose(source, proposer=self._name, note="", usage=usage)
        except UserError as error:
            self._is_spent = True
            with self._lock:
                self._usage[:0] = usage
            raise Spent(str(error)) from None
        trial = await self._run.evaluate(ready)
        self._known[source] = trial.results[0]
        return trial.results[0]

    def _taken(self) -> tuple[Usage, ...]:
        with self._lock:
            usage = tuple(self._usage)
            self._usage.clear()
        return usage


def check_optimizer(name: str) -> None:
    """Raises `UserError` where the package of an optimizer is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"--optimizer {name} needs {name}, which this Python does not have: pip install {name}"
        )


def compete(
    name: str, searches: SweepConfig, folder: Path, say: Callable[[str], None]
) -> Mapping[str, Failure]:
    """Run the optimizer called `name` on every task and seed that has no ended run in `folder`, one after the
    other. Returns what kept a search from its end, by the search's name.

    A search that was cut off begins anew, since the optimizer's own state is gone: its folder is kept as
    `NAME.cut-off`. Raises what the models' check raises, and `KeyboardInterrupt`.
    """
    todo = [run for run in searches.runs() if not has_ended(folder / run.name)]
    failures: dict[str, Failure] = {}
    if not todo:
        return failures
    check_optimizer(name)
    check(todo[0])
    prepare_backend(searches.backend, say)
    with _loop() as loop:
        queue = _wait(_queue(searches), loop)
        models = _models(searches)
        try:
            for number, run in enumerate(todo, start=1):
                say(f"[{number}/{len(todo)}] {run.name}")
                failure = _search(name, run, folder / run.name, queue, models, loop)
                if failure is not None:
                    say(f"{run.name}: {failure.message}")
                    failures[run.name] = failure
        finally:
            _wait(queue.close(), loop)
    return failures


def _guest(name: str) -> Guest:
    guest: Guest = next(one for one in get_args(Guest) if one == name)
    return guest


def _search(
    name: str,
    run: RunConfig,
    folder: Path,
    queue: EvaluationQueue,
    models: ModelPool,
    loop: asyncio.AbstractEventLoop,
) -> Failure | None:
    """One search, to its end or to what kept it from that."""
    if folder.exists():
        folder.rename(_unused(folder))
    proposer = replace(run.proposer, name="agent")
    config = replace(
        run,
        settings=replace(settings(_guest(name), run.settings.budget), seed=run.settings.seed),
        proposer=proposer,
        explorers=1,
    )
    made = _wait(_created(config, folder, queue), loop)
    contestant = Contestant(name, made, models, loop)
    try:
        with _own_signals():
            optimizer = importlib.import_module(f"kbopt.adapters.{name}").optimize
            optimizer(
                contestant,
                run.task.source,
                run.task.equal_code,
                budget=run.settings.budget.evaluations or run.settings.num_steps,
                seed=run.settings.seed,
                folder=folder / name,
            )
    except Spent:
        pass
    except (InfraError, UserError) as error:
        contestant.failed(error)
    except BaseException:
        _wait(made.close(), loop)
        raise
    return _wait(_closed(made, contestant, f"{name} ended"), loop)


async def _created(config: RunConfig, folder: Path, queue: EvaluationQueue) -> AgentRun:
    return AgentRun.create(config, folder, queue)


async def _closed(run: AgentRun, contestant: Contestant, reason: str) -> Failure | None:
    """Measure the best kernels once more, unless something is in the way, and let the journal go."""
    try:
        if contestant.failure is None:
            contestant.settle()
            await run.end(reason)
    except (InfraError, UserError) as error:
        contestant.failed(error)
    finally:
        await run.close()
    return contestant.failure


async def _queue(searches: SweepConfig) -> EvaluationQueue:
    backend = open_backend(searches.backend, needs_sandbox=not searches.backend.no_sandbox)
    return EvaluationQueue(backend, EvaluationCache(Path(":memory:")))


def _models(searches: SweepConfig) -> ModelPool:
    proposer = searches.proposer.with_secrets
    return ModelPool(
        LiteLLMService(api_base=proposer.api_base, timeout_s=proposer.timeout_s),
        parse_models(proposer.models),
        max_concurrent=proposer.max_concurrent,
        give_up_after_s=GIVE_UP_AFTER_S,
    )


def _unused(folder: Path) -> Path:
    """Where the folder of a search that was cut off is kept."""
    names = (folder.with_name(f"{folder.name}.cut-off{more}") for more in ("", *map(str, range(2, 1000))))
    return next(path for path in names if not path.exists())


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back the handlers of signals that an optimizer replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, whose end ends what still runs on it."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="kbopt-contest", daemon=True)
    thread.start()
    loop, stop = ready.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _wait(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except CancelledError:
        raise Spent("the search was ended") from None
    except BaseException:
        future.cancel()
        raise
