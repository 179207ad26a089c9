"""The evaluator for those who bring their own optimizer: synchronous calls, no Ray, no journal.

    from kbopt import Evaluator

    with Evaluator(backend="local") as evaluator:
        result = evaluator.evaluate(reference_source, candidate_source)

A backend lives on an event loop in a thread of its own, so that the calls below may come from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from kbopt.compose.backends import open_backend
from kbopt.config import BackendConfig, BackendName
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.ports import BackendStatus
from kbopt.core.protocol import EvalProtocol
from kbopt.core.scoring import score
from kbopt.core.task import Task
from kbopt.proposers.answers import Malformed, read_answer

T = TypeVar("T")
BACKEND = BackendConfig()


class Judges(Protocol):
    """What an adapter asks: an `Evaluator`, or another one that gives its verdicts and keeps account."""

    def evaluate(self, reference_source: str, candidate_source: str, *, repeat: int = 0) -> Result:
        """As of `Evaluator`."""
        ...


class Evaluator:
    """One device that judges kernels, open from `with` to its end.

    `backend` is `local` (this machine, `device` `auto`, `cpu` or `cuda:N`) or `modal` (a container with
    `gpu`, or `gpus` of them, found or started within `start_timeout_s`; it stays warm for `warm_minutes`
    after its last use, also when this is closed) or `spool` (machines that drain the folder `spool`). Calls
    may come from many threads at once; the device takes them one at a time. A bad kernel is a `Result`.
    UserError says what to change (a task that cannot be scored, a device that is not there), InfraError that
    a machine was lost: what was asked then was not judged, and may be asked again.
    """

    def __init__(
        self,
        *,
        backend: BackendName = "local",
        device: str = "auto",
        spool: str = BACKEND.spool,
        gpu: str = BACKEND.gpu,
        gpus: int = BACKEND.gpus,
        lane: str = BACKEND.lane,
        warm_minutes: float = BACKEND.warm_minutes,
        start_timeout_s: float = BACKEND.start_timeout_s,
        protocol: EvalProtocol | None = None,
    ) -> None:
        self.protocol = protocol or EvalProtocol()
        self._backend = open_backend(
            BackendConfig(
                name=backend,
                device=device,
                spool=spool,
                gpu=gpu,
                gpus=gpus,
                lane=lane,
                warm_minutes=warm_minutes,
                start_timeout_s=start_timeout_s,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: optimizers copy the guides they are given, and there is one device."""
        return self

    def open(self) -> BackendStatus:
        """Start the device or find it warm; `with` calls this."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="kbopt-evaluator", daemon=True
            )
            self._thread.start()
        try:
            return self._wait(self._backend.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End what `open` started; an Evaluator that is closed can be opened again."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self._wait(self._backend.close())
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def status(self) -> BackendStatus:
        """Which device this is, and in which state."""
        return self._wait(self._backend.status())

    def evaluate(self, reference_source: str, candidate_source: str, *, repeat: int = 0) -> Result:
        """The verdict on one candidate; `repeat` > 0 measures a source again that was measured before."""
        return self.evaluate_batch(reference_source, [candidate_source], repeat=repeat)[0]

    def evaluate_batch(
        self, reference_source: str, candidate_sources: Sequence[str], *, repeat: int = 0
    ) -> list[Result]:
        """The verdicts in the order of the candidates; builds run while others are measured.

        Raises when one of them cannot be judged, after all others were.
        """
        task = Task(name="library", source=reference_source)
        requests = [
            EvalRequest(task=task, source=source, protocol=self.protocol, repeat=repeat)
            for source in candidate_sources
        ]
        return self._wait(self._judge(requests))

    async def _judge(self, requests: Sequence[EvalRequest]) -> list[Result]:
        places = asyncio.Semaphore(self._backend.max_in_flight)

        async def judge(request: EvalRequest) -> Result:
            async with places:
                return (await self._backend.evaluate([request]))[0]

        answers = await asyncio.gather(*(judge(request) for request in requests), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, Result)]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the Evaluator is not open; use `with Evaluator(...) as evaluator:`")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class KernelGuide:
    """Scores and feedback for optimizers that ask a guide, as those of Trace do.

    `get_feedback(task, response, info)`: `info` is the reference's source, `response` a kernel's source or a
    language model's answer that holds one, `task` what the model was told, which changes nothing here.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def __call__(self, task: str, response: str, info: str, **kwargs: Any) -> tuple[float, str]:
        return self.get_feedback(task, response, info, **kwargs)

    def get_feedback(self, task: str, response: str, info: str, **kwargs: Any) -> tuple[float, str]:
        """The speedup, 0.0 for what does not work, and text that helps the next attempt."""
        source = kernel_source(response)
        if isinstance(source, Malformed):
            return 0.0, f"The answer holds no kernel: {source.reason}"
        result = self._evaluator.evaluate(info, source)
        return score(result.outcome), result.feedback

    def metric(self, task: str, response: str, info: str, **kwargs: Any) -> float:
        """The score alone."""
        return self.get_feedback(task, response, info, **kwargs)[0]


def kernel_source(answer: str) -> str | Malformed:
    """The kernel in a model's answer: its fenced block, or all of it where it has no fence."""
    if "```" not in answer:
        return answer
    found = read_answer(answer, None)
    return found if isinstance(found, Malformed) else found.source
