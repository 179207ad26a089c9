"""Asks a worker that loads its sources first and says when it needs the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from kbopt.core.evaluations import EvalRequest
from kbopt.core.workloads import shown_source
from kbopt.evaluation.messages import CallBoth, Go, NeedsDevice
from kbopt.evaluation.sandbox.children import Child
from kbopt.evaluation.server.devices import Device, num_threads
from kbopt.evaluation.transport.channel import WireError
from kbopt.evaluation.transport.untrusted import says


def answer_of(
    child: Child,
    request: EvalRequest,
    setup: str,
    device: Device,
    turn: Callable[[], AbstractContextManager[None]],
    *,
    loading_s: float,
    held_s: float,
) -> tuple[Any, float]:
    """Return the child's answer as it came, and the seconds for which it had the device.

    It gets the device within `turn`, for `held_s` seconds at most, and may load for `loading_s` seconds. An
    answer that comes before it was ready, such as a failure to load, needs no device. Raises TimeoutError,
    ChannelClosed and WireError.
    """
    job = CallBoth(
        task_source=shown_source(request.task.source),
        source=request.source,
        setup=setup,
        device=device.torch,
        threads=num_threads(),
        protocol=request.protocol,
    )
    answer = child.ask(job, loading_s)
    if not says(NeedsDevice, answer):
        return answer, 0.0
    with turn():
        started = time.monotonic()
        try:
            answer = child.ask(Go(), held_s)
        except (TimeoutError, WireError):
            child.close()
            raise
        child.close()  # Nothing of it may run while another candidate is timed.
        return answer, time.monotonic() - started
