"""`torch.compile` of a task's reference as a second baseline: timed once, in a clean process, and kept.

Compiling takes seconds and launches kernels, which made candidates beside it take twice as long. So it waits
until no candidate is being evaluated, five minutes at most; results of the task until then do not have the
figure. The device's lease is held for the timed calls only. On a CPU it is left out: there the compiler
would take the cores on which candidates are timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

from kbopt.core.types import EvalRequest
from kbopt.evaluation.children import ZygoteHandle
from kbopt.evaluation.devices import Device
from kbopt.evaluation.wire import Channel, ChannelClosed, WireError

_COMPILE_S = 300.0
_TIMED_S = 60.0
_NUM_TIMED = 30
_PATIENCE_S = 300.0
_LOOK_S = 0.2


class CompiledBaselines:
    """Milliseconds of `torch.compile(Model)` by task, device, driver, torch and precision, under `root`."""

    def __init__(
        self,
        zygote: ZygoteHandle,
        device: Device,
        root: Path,
        lease: threading.Lock,
        is_idle: Callable[[], bool],
    ) -> None:
        self._zygote = zygote
        self._device = device
        self._root = root
        self._lease = lease
        self._is_idle = is_idle
        self._asked: set[str] = set()
        self._one_at_a_time = threading.Lock()

    def ms(self, request: EvalRequest) -> float | None:
        """The figure, None while it is not known; the first call for a task sets out to measure it."""
        if not self._device.is_cuda:
            return None
        file = self._root / f"{self._key(request)}.json"
        with suppress(FileNotFoundError):
            return float(json.loads(file.read_text())["ms"])
        if file.name not in self._asked:
            self._asked.add(file.name)
            threading.Thread(target=self._measure, args=(request, file), daemon=True).start()
        return None

    def _key(self, request: EvalRequest) -> str:
        driver = Path("/proc/driver/nvidia/version")
        parts = {
            "task": request.task.source,
            "precision": request.protocol.precision,
            "tf32": request.protocol.allow_tf32,
            "device": self._device.hardware,
            "driver": driver.read_text() if driver.exists() else "",
            "toolchain": self._device.toolchain.key,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _measure(self, request: EvalRequest, file: Path) -> None:
        with self._one_at_a_time:
            until = time.monotonic() + _PATIENCE_S
            while not self._is_idle() and time.monotonic() < until:
                time.sleep(_LOOK_S)
            self._measure_one(request, file)

    def _measure_one(self, request: EvalRequest, file: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        channel, pid = self._zygote.spawn_trusted("baseline")
        job = {
            "source": request.task.source,
            "precision": request.protocol.precision,
            "allow_tf32": request.protocol.allow_tf32,
            "device": self._device.torch,
            "cache": str(self._root / "inductor"),
        }
        try:
            with closing(channel):
                channel.send(job)
                channel.receive(_COMPILE_S)
                with self._lease:
                    channel.send({"timed": _NUM_TIMED})
                    times_ms = channel.receive(_TIMED_S)["ms"]
        except (ChannelClosed, TimeoutError, WireError) as error:
            print(f"no torch.compile baseline for {request.task.name}: {error}", file=sys.stderr)
            return
        finally:
            self._zygote.kill(pid)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"task": request.task.name, "ms": median(times_ms)}))
        partial.rename(file)


def main(channel: Channel) -> None:
    """Compile the task of the first message; on the second, time it as the reference is: on a cold L2."""
    job = channel.receive()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = job["cache"]
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch

    from kbopt.evaluation.reference import Reference

    device = torch.device(job["device"])
    reference = Reference(job["source"], job["precision"], device, 0, job["allow_tf32"])
    compiled = torch.compile(reference.model)
    arguments = reference.draw(1).arguments()
    with torch.no_grad():
        for _ in range(3):
            compiled(*arguments)
        torch.cuda.synchronize(device)
        channel.send({"compiled": True})
        num_timed = channel.receive()["timed"]
        channel.send({"ms": [_cold_ms(lambda: compiled(*arguments), device) for _ in range(num_timed)]})


def _cold_ms(call: Any, device: Any) -> float:
    import torch

    flush = torch.empty(2**28, dtype=torch.uint8, device=device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.zero_()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))
