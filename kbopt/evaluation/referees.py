"""The supervisor's handles on the tasks' referees, and on the children that play the references for them."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import EvalRequest
from kbopt.evaluation.children import Child, ZygoteHandle, warm_up
from kbopt.evaluation.devices import Device, num_threads
from kbopt.evaluation.keyed_locks import KeyedLocks
from kbopt.evaluation.lease import Lease
from kbopt.evaluation.sandbox import SandboxConfig
from kbopt.evaluation.wire import ChannelClosed

_START_S = 120.0
_ADMISSION_S = 300.0
_GRACE_S = 300.0
_MOST_ON_CPU = 4
_MOST_ON_GPU = 16
_STARTS_AT_ONCE = 4
_FREE_FOR_ANOTHER = 0.45
"""Share of a GPU's memory to be had before a task is admitted, which says how much it needs. The referee and
the child that plays the reference hold inputs and outputs there; the least used ones go until it is."""


_Key = tuple[str, str, str, bool]


class NoMemory(UserError):
    """The task does not fit into what other tasks have left of the device's memory."""


class RefereeHandle:
    """The supervisor's handle on one referee. It starts beside whoever holds the device; the rest needs the
    lease.

    `request` is the one it was started for. `free_share` of the device's memory was not taken by anybody
    after the latest answer, `taken_share` is what admitting the task took, `needed_share` what judging a
    candidate takes beyond that. Raises InfraError, and UserError for a task that cannot be scored.
    """

    def __init__(
        self, zygote: ZygoteHandle, request: EvalRequest, device: Device, sandbox: SandboxConfig
    ) -> None:
        self.request = request
        self._zygote = zygote
        self._device = device
        self._child = Child(zygote, "measure", sandbox)
        self._channel, self._pid = zygote.spawn_trusted("referee")
        self._lock = threading.Lock()
        self.alive = True
        self.admitted = False
        self.free_share = 1.0
        self.taken_share = self.needed_share = 0.0
        start = {
            "op": "start",
            "source": request.task.source,
            "protocol": codec.encode(request.protocol),
            "device": device.torch,
            "threads": num_threads(),
            "warden": self._child.warden_pid,
        }
        late = InfraError(f"the process that holds the reference did not start within {_START_S:g} s")
        self._ask(start, self._child.fds, _START_S, late)
        if device.is_cuda:
            warm_up([self._child], device.torch)

    def admit(self, free_share: float = 1.0, make_room: Callable[[float], None] | None = None) -> None:
        """Find out whether the task can be scored, once. `make_room` is told the share of the device's memory
        that it takes.
        """
        if self.admitted:
            return
        late = UserError(
            f"admission test 'the reference runs' failed: task {self.request.task.name} was not admitted "
            f"within {_ADMISSION_S:g} s; make its inputs smaller"
        )
        share = self._ask({"op": "size"}, (), _ADMISSION_S, late)["share"]
        if make_room is not None:
            make_room(share)
        self.needed_share = self._ask({"op": "admit"}, (), _ADMISSION_S, late)["needed_share"]
        self.taken_share = max(0.0, free_share - self.free_share)
        self.admitted = True

    def describe(self) -> dict[str, Any]:
        """What the table of admitted tasks says of this one, see `referee`."""
        late = UserError(
            f"the reference of task {self.request.task.name} was not timed within {_GRACE_S:g} s"
        )
        return self._ask({"op": "describe"}, (), _GRACE_S, late)

    def judge(
        self, request: EvalRequest, child: Child, setup: str, arithmetic: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The verdict; `arithmetic` is what the build's machine code was seen to multiply in, see
        `inspection`.
        """
        job = {
            "arithmetic": list(arithmetic),
            "op": "judge",
            "source": request.source,
            "setup": setup,
            "protocol": codec.encode(request.protocol),
            "warden": child.warden_pid,
        }
        limit_s = request.protocol.timeout_s * 2 + _GRACE_S
        late = UserError(
            f"the reference of task {request.task.name} was too slow to judge within {limit_s:g} s"
        )
        return self._ask(job, child.fds, limit_s, late)

    def close(self) -> None:
        self.alive = False
        self.taken_share = 0.0
        self._channel.close()
        self._child.close()
        self._zygote.kill(self._pid)

    def _ask(
        self, job: dict[str, Any], fds: tuple[int, ...], limit_s: float, late: UserError | InfraError
    ) -> dict[str, Any]:
        try:
            with self._lock:
                self._channel.send(job, fds)
                answer = self._channel.receive(limit_s)
        except TimeoutError:
            self.close()
            raise late from None
        except ChannelClosed:
            self.close()
            raise InfraError(
                "the process that holds the reference ended; the service's log says why"
            ) from None
        if "task_error" in answer:
            self.close()
            raise (NoMemory if answer["no_memory"] else UserError)(str(answer["task_error"]))
        self.free_share = answer.get("free_share", self.free_share)
        return answer


class Referees:
    """One referee for each task and precision, started while candidates are built, the least used end first.

    `of` under the lease; `prepare` takes it when it needs it. Whoever will need a referee says so before, by
    `awaited`.
    """

    def __init__(
        self,
        zygote: ZygoteHandle,
        device: Device,
        sandbox: Callable[[], SandboxConfig],
        lease: Lease,
    ) -> None:
        self._zygote = zygote
        self._device = device
        self._sandbox = sandbox
        self._lease = lease
        self._handles: OrderedDict[_Key, RefereeHandle] = OrderedDict()
        self._awaited: Counter[_Key] = Counter()
        self._displaced: dict[_Key, tuple[_Key, EvalRequest]] = {}
        self._lock = threading.Lock()
        self._starting = KeyedLocks()
        self._slots = threading.BoundedSemaphore(_STARTS_AT_ONCE)
        self._most = _MOST_ON_GPU if device.is_cuda else _MOST_ON_CPU
        self._free = 1.0

    @contextmanager
    def awaited(self, request: EvalRequest) -> Iterator[None]:
        """While somebody waits for its referee, others make room before it. If it has to, it starts again as
        soon as whoever needed the room is done.
        """
        key = _key(request)
        with self._lock:
            self._awaited[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._awaited[key] -= 1
                mine = [other for other, (by, _) in self._displaced.items() if by == key]
                displaced = [self._displaced.pop(other)[1] for other in mine]
                missed = [other for other in displaced if self._awaited[_key(other)]]
            for other_request in missed:
                self.prepare(other_request)

    def prepare(self, request: EvalRequest) -> Future[None]:
        """In a thread, start the referee of the request's task, and admit the task where the device has room.

        Done when that is; with the exception that a task which cannot be scored raises.
        """
        done: Future[None] = Future()
        known = self._handles.get(_key(request))
        if known is not None and known.alive and known.admitted:
            done.set_result(None)
            return done

        def work() -> None:
            try:
                self._admit_beforehand(request)
            except (NoMemory, InfraError):
                done.set_result(None)  # Later others may have made room; with the lease it is tried again.
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is asked
                done.set_exception(error)
            else:
                done.set_result(None)

        threading.Thread(target=work, daemon=True).start()
        return done

    def start(self, request: EvalRequest) -> RefereeHandle:
        """The referee of the request's task; it may not be admitted yet."""
        key = _key(request)
        with self._starting.of(key):
            with self._lock:
                handle = self._handles.get(key)
            if handle is None or not handle.alive:
                handle = RefereeHandle(self._zygote, request, self._device, self._sandbox())
                with self._lock:
                    self._handles[key] = handle
        return handle

    def of(self, request: EvalRequest) -> RefereeHandle:
        """The referee of the request's task, which was admitted."""
        handle = self.start(request)
        if not handle.admitted:

            def make_room(share: float) -> None:
                self.settle(handle)
                self._make_room(request, share)

            try:
                handle.admit(self._free, make_room)
            except NoMemory:
                self._make_room(request, 1.0)
                handle = self.start(request)
                handle.admit(self._free)
            self.settle(handle)
        self._make_room(request, handle.needed_share)
        with self._lock:
            self._handles.move_to_end(_key(request))
        return handle

    def settle(self, handle: RefereeHandle) -> None:
        """Note how much of the device's memory was free when `handle` answered last."""
        self._free = handle.free_share

    def close(self) -> None:
        for handle in list(self._handles.values()):
            handle.close()

    def make_all_room(self, request: EvalRequest) -> bool:
        """End the referees of all other tasks. Whether there were any. Under the lease."""
        had_others = self._num_others(request) > 0
        self._make_room(request, 1.0)
        return had_others

    def _admit_beforehand(self, request: EvalRequest) -> None:
        if self._num_others(request) >= self._most:
            return
        with self._slots:
            handle = self.start(request)
        if handle.admitted:
            return
        # Only where the device has nothing else to do: to wait for it here would gain nothing.
        if not self._lease.acquire_now():
            return
        try:
            if handle.alive and not handle.admitted and self._has_room(request, _FREE_FOR_ANOTHER):
                handle.admit(self._free)
                self.settle(handle)
        finally:
            self._lease.release()

    def _has_room(self, request: EvalRequest, free_share: float) -> bool:
        return self._num_others(request) < self._most and self._free >= free_share

    def _num_others(self, request: EvalRequest) -> int:
        with self._lock:
            return sum(handle.alive for key, handle in self._handles.items() if key != _key(request))

    def _make_room(self, request: EvalRequest, free_share: float) -> None:
        """End the referees of other tasks: those that nobody waits for by the time of their last use, then
        those that were used or started last.
        """
        while not self._has_room(request, free_share):
            with self._lock:
                others = [key for key in self._handles if key != _key(request)]
                if not others:
                    return
                chosen = next((key for key in others if not self._awaited[key]), others[-1])
            with self._starting.of(chosen):  # Nobody is to find it dying at its start.
                with self._lock:
                    handle = self._handles.pop(chosen)
                    if self._awaited[chosen]:
                        self._displaced[chosen] = _key(request), handle.request
                self._free += handle.taken_share
                handle.close()


def _key(request: EvalRequest) -> _Key:
    protocol = request.protocol
    return request.task.key, protocol.precision, protocol.arithmetic, protocol.eval_mode
