"""The supervisor's handles on the tasks' judges, and on the workers that run the references for them."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from kbopt.core.errors import InfraError
from kbopt.core.types import EvalRequest
from kbopt.evaluation.sandbox.children import ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judge_handle import JudgeHandle, NoMemory
from kbopt.evaluation.server.keyed_locks import KeyedLocks
from kbopt.evaluation.server.lease import Lease
from kbopt.evaluation.server.needs import Data

_MOST = 12
"""Judges that are kept, where the memory budget allows for them: two processes of 1 GiB each on a GPU's
host."""
_AHEAD = 4
"""Judges that are started before the device is free for them. Each takes a core for two seconds; with thirty
at once on 16 cores, whoever had the device judged three times as slowly."""
_FREE_FOR_ANOTHER = 0.45
"""Share of a GPU's memory to be had before a task is admitted, which says how much it needs. The judge and
the reference's worker hold inputs and outputs there; the least used ones go until it is."""


Key = tuple[str, str, str, bool, bool]


class Judges:
    """One judge for each task and precision, started while candidates are built, the least used end first.

    `of` under the lease; `prepare` takes it when it needs it. Whoever will need a judge says so before, by
    `awaited`: such judges end last. `ended` hears the key of each that was closed. At most `most` are kept.
    """

    def __init__(
        self,
        fork_server: ForkServerHandle,
        device: Device,
        sandbox: Callable[[], SandboxConfig],
        lease: Lease,
        ended: Callable[[Key], None] = lambda _: None,
        most: int = _MOST,
    ) -> None:
        self._fork_server = fork_server
        self._device = device
        self._sandbox = sandbox
        self._lease = lease
        self._handles: OrderedDict[Key, JudgeHandle] = OrderedDict()
        self._awaited: Counter[Key] = Counter()
        self._lock = threading.Lock()
        self._starting = KeyedLocks()
        self._preparing = threading.BoundedSemaphore(_AHEAD)
        self._most = most
        self._ended = ended
        self._data: dict[Key, Data] = {}
        self._free = 1.0

    @contextmanager
    def awaited(self, request: EvalRequest) -> Iterator[None]:
        """While somebody waits for its judge, others make room before it."""
        key = key_of(request)
        with self._lock:
            self._awaited[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._awaited[key] -= 1

    def prepare(self, request: EvalRequest) -> Future[None]:
        """In a thread, start the judge of the request's task, and admit the task where the device is idle and
        has room; nothing where several others are about to start.

        Done when that is; with the exception that a task which cannot be scored raises.
        """
        done: Future[None] = Future()
        known = self._handles.get(key_of(request))
        is_ready = known is not None and known.alive and known.admitted
        if is_ready or not self._preparing.acquire(blocking=False):
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
            finally:
                self._preparing.release()

        threading.Thread(target=work, daemon=True).start()
        return done

    def start(self, request: EvalRequest) -> JudgeHandle:
        """The judge of the request's task; it may not be admitted yet."""
        key = key_of(request)
        with self._starting.of(key):
            with self._lock:
                handle = self._handles.get(key)
            if handle is None or not handle.alive:
                handle = JudgeHandle(self._fork_server, request, self._device, self._sandbox())
                with self._lock:
                    self._handles[key] = handle
                handle.construct()
        return handle

    def is_warm(self, key: Hashable) -> bool:
        """Whether there is a judge of that key, and its task is admitted."""
        handle = self._handles.get(key)  # type: ignore[call-overload]
        return handle is not None and handle.alive and handle.admitted

    def data_of(self, request: EvalRequest) -> Data | None:
        """How large the data of the request's task are, where one of its judges has found out."""
        return self._data.get(key_of(request))

    def close_idle(self, keep: Collection[Hashable]) -> bool:
        """End the judge that was used least recently of those whose key is not in `keep`. Whether there was
        one.
        """
        with self._lock:
            chosen = next((key for key in self._handles if key not in keep), None)
        if chosen is None:
            return False
        with self._starting.of(chosen):
            with self._lock:
                handle = self._handles.pop(chosen, None)
            if handle is not None:
                self._free += handle.taken_share
                handle.close()
        self._ended(chosen)
        return True

    def of(self, request: EvalRequest, learned: Callable[[Data], None] = lambda _: None) -> JudgeHandle:
        """The judge of the request's task, which was admitted. `learned` hears how large its data are,
        see `JudgeHandle.admit`.
        """
        handle = self.start(request)
        if not handle.admitted:

            def make_room(share: float) -> None:
                self.settle(handle)
                self._make_room(request, share)

            try:
                self._admit(handle, learned, make_room)
            except NoMemory:
                self._make_room(request, 1.0)
                handle = self.start(request)
                self._admit(handle, learned)
            self.settle(handle)
        self._make_room(request, handle.needed_share)
        with self._lock:
            self._handles.move_to_end(key_of(request))
        return handle

    def settle(self, handle: JudgeHandle) -> None:
        """Note how much of the device's memory was free when `handle` answered last."""
        self._free = handle.free_share

    def close(self) -> None:
        for handle in list(self._handles.values()):
            handle.close()

    def make_room(self, request: EvalRequest) -> None:
        """For as much of the device's memory as judging the request's task takes. Under the lease."""
        with self._lock:
            handle = self._handles.get(key_of(request))
        self._make_room(request, handle.needed_share if handle is not None else _FREE_FOR_ANOTHER)

    def make_all_room(self, request: EvalRequest) -> bool:
        """End the judges of all other tasks. Whether there were any. Under the lease."""
        had_others = False
        while self.close_idle({key_of(request)}):
            had_others = True
        return had_others

    def _admit_beforehand(self, request: EvalRequest) -> None:
        if self._num_others(request) >= self._most:
            return
        handle = self.start(request)
        if handle.admitted:
            return
        # Only where the device has nothing else to do: to wait for it here would gain nothing.
        if not self._lease.acquire_now():
            return
        try:
            if handle.alive and not handle.admitted and self._has_room(request, _FREE_FOR_ANOTHER):
                self._admit(handle)
                self.settle(handle)
        finally:
            self._lease.release()

    def _admit(
        self,
        handle: JudgeHandle,
        learned: Callable[[Data], None] = lambda _: None,
        make_room: Callable[[float], None] = lambda _: None,
    ) -> None:
        key = key_of(handle.request)

        def note(data: Data) -> None:
            self._data[key] = data
            learned(data)

        handle.admit(self._free, note, make_room)

    def _has_room(self, request: EvalRequest, free_share: float) -> bool:
        return self._num_others(request) < self._most and self._free >= free_share

    def _num_others(self, request: EvalRequest) -> int:
        with self._lock:
            return sum(handle.alive for key, handle in self._handles.items() if key != key_of(request))

    def _make_room(self, request: EvalRequest, free_share: float) -> None:
        """End the judges of other tasks: those that nobody waits for by the time of their last use, then
        those that were used or started last. Such as were not admitted hold little: they end where there are
        too many, or all is asked for.
        """
        while not self._has_room(request, free_share):
            with self._lock:
                others = [key for key in self._handles if key != key_of(request)]
                if free_share < 1.0 and len(others) < self._most:
                    others = [key for key in others if self._handles[key].admitted]
                if not others:
                    return
                chosen = next((key for key in others if not self._awaited[key]), others[-1])
            with self._starting.of(chosen):  # Nobody is to find it dying at its start.
                with self._lock:
                    handle = self._handles.pop(chosen)
                self._free += handle.taken_share
                handle.close()
            self._ended(chosen)


def key_of(request: EvalRequest) -> Key:
    """What requests have in common that one judge judges."""
    protocol = request.protocol
    return request.task.key, protocol.precision, protocol.arithmetic, protocol.eval_mode, protocol.backward
