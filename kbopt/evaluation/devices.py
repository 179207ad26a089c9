"""Which device the service judges on, and with which compilers: found out by a process of its own."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import InfraError, UserError
from kbopt.evaluation.children import ZygoteHandle
from kbopt.evaluation.compile.toolchain import Toolchain
from kbopt.evaluation.wire import ChannelClosed

_SURVEY_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`torch` is how torch names it (`cpu`, `cuda:0`), `name` how results do."""

    torch: str
    name: str
    hardware: str
    toolchain: Toolchain

    @property
    def is_cuda(self) -> bool:
        return self.torch.startswith("cuda")


def find_device(wanted: str, zygote: ZygoteHandle) -> Device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`. Raises UserError where there is none."""
    channel, _ = zygote.spawn_trusted("survey")
    with closing(channel):
        channel.send({"device": wanted})
        try:
            seen = channel.receive(_SURVEY_S)
        except (ChannelClosed, TimeoutError):
            raise InfraError("the process that looks for devices ended; standard error says why") from None
    toolchain = Toolchain(**seen["toolchain"])
    names = seen["cuda"]
    if names:
        index = int(wanted.partition(":")[2] or 0)
        if index >= len(names):
            raise UserError(f"there is no device {wanted}; this machine has {len(names)} CUDA devices")
        name = names[index]
        return Device(torch=f"cuda:{index}", name=name, hardware=name, toolchain=toolchain)
    if wanted not in ("auto", "cpu"):
        raise UserError(f"device {wanted!r} was asked for, and torch finds no CUDA device; use --device cpu")
    name = f"{_cpu_name()}, {num_threads()} threads"
    return Device(torch="cpu", name=name, hardware="cpu", toolchain=toolchain)


def num_threads() -> int:
    """Threads of either model: one core stays free for all that is not being timed.

    With a thread on every core, a parallel region waits for whichever thread the rest of the system has
    displaced: on 2 busy cores that made a 1 ms call take 50 ms.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"
