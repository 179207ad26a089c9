"""The supervisor's pool of judges, one for each task, with the workers that run their references."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from kbopt.core.errors import InfraError
from kbopt.core.evaluations import EvalRequest
from kbopt.evaluation.messages import Sizes
from kbopt.evaluation.sandbox.children import ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judge_handle import JudgeHandle, NoMemory
from kbopt.evaluation.server.lease import Lease

_MOST = 12
"""Judges that are kept at most. The memory budget may allow fewer: beside a GPU each takes two processes of
1 GiB."""
_AHEAD = 4
"""Judges that start at once, while others are measured. Each takes a core for 2 s. With 30 at once on 16
cores, the candidate that had the device was judged three times as slowly."""
_FREE_FOR_ANOTHER = 0.45
"""Share of a GPU's memory that has to be free before a task is admitted. Only admission tells how much it
needs. Judges and references' workers hold inputs and outputs there."""


Key = tuple[str, str, str, bool, bool]


class Judges:
    """Keeps at most `most` judges, one for each `key_of` a request, and ends the least recently used first.

    `prepare` starts a judge while candidates are built and others are measured, and takes the lease itself if
    the device is idle. Call `of` with the lease. A request that needs its judge, now or later, says so with
    `awaited`: only the lease's holder ends an awaited judge, after all others. `ended` is called with the key
    of each judge that was closed.
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
        self._lock = threading.Condition()
        self._starting: dict[Key, threading.Lock] = {}  # Its `setdefault` is atomic.
        self._places: set[Key] = set()
        self._preparing = threading.BoundedSemaphore(_AHEAD)
        self._most = most
        self._ended = ended
        self._sizes: dict[Key, Sizes] = {}
        self._free = 1.0

    @contextmanager
    def awaited(self, request: EvalRequest) -> Iterator[None]:
        """Mark the request's judge as needed within the context, so that other judges end before it."""
        key = key_of(request)
        with self._lock:
            self._awaited[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._awaited[key] -= 1
                self._lock.notify_all()

    def prepare(self, request: EvalRequest) -> Future[None]:
        """Start the judge of the request's task in a thread, and admit the task if the device is idle.

        The thread waits while `_AHEAD` others are starting, and while requests await all judges that are
        kept. So call it within `awaited`. The future is done when the thread is. It raises UserError if the
        task cannot be scored.
        """
        done: Future[None] = Future()
        key = key_of(request)
        if self.is_warm(key):
            done.set_result(None)
            return done

        def work() -> None:
            try:
                if self._take_place(key):
                    with self._preparing:
                        self._admit_beforehand(request)
            except (NoMemory, InfraError):
                done.set_result(None)  # `of` tries again with the lease, when there may be room.
            except BaseException as error:  # noqa: BLE001 - the future raises it
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                self._give_place_back(key)

        threading.Thread(target=work, daemon=True).start()
        return done

    def start(self, request: EvalRequest) -> JudgeHandle:
        """Return the judge of the request's task, started if necessary. The task may not be admitted yet."""
        key = key_of(request)
        with self._starting.setdefault(key, threading.Lock()):
            with self._lock:
                handle = self._handles.get(key)
            if handle is None or not handle.alive:
                handle = JudgeHandle(self._fork_server, request, self._device, self._sandbox())
                with self._lock:
                    self._handles[key] = handle
                handle.construct()
        return handle

    @contextmanager
    def at_hand(self, request: EvalRequest) -> Iterator[None]:
        """Hold the lease within the context, with the request's judge started if possible."""
        with suppress(NoMemory, InfraError):  # `of` tries again with the lease, when there may be room.
            self.start(request)
        with self._lease:
            yield

    def is_warm(self, key: Hashable) -> bool:
        """Return whether the judge of that key lives and has admitted its task."""
        handle = self._handles.get(key)  # type: ignore[call-overload]
        return handle is not None and handle.alive and handle.admitted

    def sizes_of(self, request: EvalRequest) -> Sizes | None:
        """Return the sizes of the task's data, or None if no judge has found them out yet."""
        return self._sizes.get(key_of(request))

    def close_idle(self, keep: Collection[Hashable]) -> bool:
        """End the least recently used judge whose key is not in `keep`. Return whether there was one."""
        with self._lock:
            chosen = next((key for key in self._handles if key not in keep), None)
        if chosen is None:
            return False
        self._end(chosen)
        return True

    def of(self, request: EvalRequest, learned: Callable[[], None] = lambda: None) -> JudgeHandle:
        """Return the judge of the request's task, with the task admitted. Call it with the lease.

        `learned` is called when `sizes_of` has new values, and raises if they are too much.
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
        """Free as much of the device's memory as judging the task takes. Call it with the lease."""
        with self._lock:
            handle = self._handles.get(key_of(request))
        self._make_room(request, handle.needed_share if handle is not None else _FREE_FOR_ANOTHER)

    def start_over(self, request: EvalRequest) -> bool:
        """End all judges, if there are others than the request's own. Return whether there were.

        Call it with the lease.
        """
        if not self._num_others(request):
            return False
        while self.close_idle(()):
            pass
        return True

    def _take_place(self, key: Key) -> bool:
        """Wait for one of the `most` places, and return whether there is one. Judges that nobody awaits make
        room for one that a request awaits.
        """
        while True:
            with self._lock:
                self._lock.wait_for(
                    lambda: self._has_place(key) or not self._awaited[key] or self._unawaited(key)
                )
                if self._has_place(key):
                    self._places.add(key)
                    return True
                if not self._awaited[key]:
                    return False
                chosen = self._unawaited(key)[0]
            self._end(chosen, unless_awaited=True)

    def _give_place_back(self, key: Key) -> None:
        """Leave the place to the judge that has started, if any."""
        with self._lock:
            self._places.discard(key)
            self._lock.notify_all()

    def _has_place(self, key: Key) -> bool:
        return key in self._handles or len(self._places | self._handles.keys()) < self._most

    def _unawaited(self, key: Key) -> list[Key]:
        """Return the keys of judges that nobody awaits, the least recently used first."""
        return [other for other in self._handles if other != key and not self._awaited[other]]

    def _end(self, key: Key, *, unless_awaited: bool = False) -> None:
        # So that no thread is starting it meanwhile.
        with self._starting.setdefault(key, threading.Lock()):
            with self._lock:
                if unless_awaited and self._awaited[key]:
                    return  # A request has come since the judge was chosen, and may be using it.
                handle = self._handles.pop(key, None)
                self._lock.notify_all()
            if handle is not None:
                self._free += handle.taken_share
                handle.close()
        self._ended(key)

    def _admit_beforehand(self, request: EvalRequest) -> None:
        handle = self.start(request)
        if handle.admitted:
            return
        # Only if the device is idle: to wait for the lease here would gain nothing.
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
        learned: Callable[[], None] = lambda: None,
        make_room: Callable[[float], None] = lambda _: None,
    ) -> None:
        key = key_of(handle.request)

        def note(sizes: Sizes) -> None:
            self._sizes[key] = sizes
            learned()

        handle.admit(self._free, note, make_room)

    def _has_room(self, request: EvalRequest, free_share: float) -> bool:
        return self._num_others(request) < self._most and self._free >= free_share

    def _num_others(self, request: EvalRequest) -> int:
        with self._lock:
            return sum(handle.alive for key, handle in self._handles.items() if key != key_of(request))

    def _make_room(self, request: EvalRequest, free_share: float) -> None:
        """End judges of other tasks until `free_share` of the device's memory is free.

        Judges that nobody awaits end first, the least recently used before others; then the awaited ones, the
        most recently used first. Judges without an admitted task hold little memory. They end only if there
        are too many judges or `free_share` is 1.
        """
        while not self._has_room(request, free_share):
            with self._lock:
                others = [key for key in self._handles if key != key_of(request)]
                if free_share < 1.0 and len(others) < self._most:
                    others = [key for key in others if self._handles[key].admitted]
                if not others:
                    return
                chosen = next((key for key in others if not self._awaited[key]), others[-1])
            self._end(chosen)


def key_of(request: EvalRequest) -> Key:
    """Return the key of the judge that serves the request: its task and the protocol's arithmetic."""
    protocol = request.protocol
    return request.task.key, protocol.precision, protocol.arithmetic, protocol.eval_mode, protocol.backward
