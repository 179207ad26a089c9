"""KernelBench's own verdict on a candidate, from a worker that runs KernelBench's protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kbopt.core.evaluations import EvalRequest, KernelBenchVerdict
from kbopt.core.outcomes import CompileFailed, Crashed, Outcome, TimedOut
from kbopt.evaluation.build.building import Built
from kbopt.evaluation.kernelbench import verdicts
from kbopt.evaluation.sandbox.children import Child, warm_up
from kbopt.evaluation.server.cores import Cores
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.server.judges import Judges
from kbopt.evaluation.server.lease import Lease
from kbopt.evaluation.server.on_device import answer_of
from kbopt.evaluation.server.sandboxes import Sandboxes
from kbopt.evaluation.server.timeline import Timeline
from kbopt.evaluation.transport.channel import ChannelClosed, WireError

_LOADING_S = 600.0
"""Seconds for the work without the device: to construct the models and to load the candidate."""
_AT_ONCE = 4
"""Workers at once. Each has a CUDA context and a task's models on the device."""


class KernelBench:
    """Runs KernelBench's protocol. On a GPU it takes the lease when the worker asks for the device."""

    def __init__(
        self, device: Device, lease: Lease, judges: Judges, sandboxes: Sandboxes, cores: Cores
    ) -> None:
        self._device = device
        self._cores = cores
        self._lease = lease
        self._judges = judges
        self._sandboxes = sandboxes
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def judge(
        self, request: EvalRequest, built: Built, outcome: Outcome, timeline: Timeline
    ) -> KernelBenchVerdict:
        device, timeout_s = self._device, request.protocol.timeout_s
        if isinstance(outcome, CompileFailed | Crashed | TimedOut):
            return verdicts.kernelbench_failure(outcome, device.hardware, device.torch)
        with self._slots, closing(self._sandboxes.child(built, "kernelbench")) as child:
            if device.is_cuda:
                warm_up([child], device.torch, built.setup, triton="triton" in request.source)
            try:
                answer, device_s = answer_of(
                    child,
                    request,
                    built.setup,
                    device,
                    lambda: self._turn(request, child),
                    loading_s=_LOADING_S,
                    held_s=timeout_s,
                )
            except TimeoutError:
                late = TimedOut(reason="timed out", stage="time", limit_s=timeout_s)
                return verdicts.kernelbench_failure(late, device.hardware, device.torch)
            except (ChannelClosed, WireError):
                return verdicts.kernelbench_failure(child.crash(), device.hardware, device.torch)
        timeline.device_s += device_s
        return verdicts.kernelbench_from(answer)

    @contextmanager
    def _turn(self, request: EvalRequest, child: Child) -> Iterator[None]:
        if not self._device.is_cuda:  # The caller holds the lease.
            yield
            return
        with self._lease.to_go_on():
            self._judges.make_room(request)
            with self._cores.timed(child.init_pid):
                yield
