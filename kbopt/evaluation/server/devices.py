"""Finds the service's device, its compilers, and the other GPUs that sandboxes should hide.

A separate process looks for them, because that takes torch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import InfraError, UserError
from kbopt.evaluation.messages import Surveyed
from kbopt.evaluation.sandbox.children import ForkServerHandle
from kbopt.evaluation.transport.channel import ChannelClosed
from kbopt.leanbuild.toolchain import Toolchain

_SURVEY_S = 120.0
"""Seconds to look for devices, torch's initialisation of CUDA included."""
_DRIVER = Path("/proc/driver/nvidia/gpus")
"""The folder in which NVIDIA's driver describes its GPUs, each under its PCI address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device that a service judges on.

    `torch` is its name in torch (`cpu`, `cuda:0`), `name` its name in results. `others` are the device files
    of the machine's other GPUs, or empty if this GPU's own file is not known. If `others` is not empty,
    processes get CUDA_VISIBLE_DEVICES=`uuid` and `torch` is the name in them.
    """

    torch: str
    name: str
    hardware: str
    toolchain: Toolchain
    uuid: str = ""
    num_gpus: int = 0
    others: tuple[str, ...] = ()

    @property
    def is_cuda(self) -> bool:
        return self.torch.startswith("cuda")


def find_device(wanted: str, fork_server: ForkServerHandle) -> Device:
    """Return the device called `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises UserError if there is no such device, and InfraError if the process that looks for it ended.
    """
    try:
        seen: Surveyed = fork_server.survey.receive(Surveyed, _SURVEY_S)
    except (ChannelClosed, TimeoutError):
        raise InfraError(f"the process that looks for devices ended; {fork_server.log} says why") from None
    toolchain, names = seen.toolchain, seen.cuda
    if names:
        index = int(wanted.partition(":")[2] or 0)
        if index >= len(names):
            raise UserError(f"there is no device {wanted}; this machine has {len(names)} CUDA devices")
        name, uuid = names[index], seen.uuid
        others = other_gpus(seen.bus) if uuid else ()
        return Device(
            torch="cuda:0" if others else f"cuda:{index}",
            name=name,
            hardware=name,
            toolchain=toolchain,
            uuid=uuid,
            num_gpus=len(gpu_files()),
            others=others,
        )
    if wanted not in ("auto", "cpu"):
        raise UserError(f"device {wanted!r} was asked for, and torch finds no CUDA device; use --device cpu")
    threads = num_threads()
    name = f"{_cpu_name()}, {threads} thread{'s' * (threads > 1)}"
    return Device(torch="cpu", name=name, hardware="cpu", toolchain=toolchain)


def gpu_files(files: Path = Path("/dev")) -> list[Path]:
    """Return one device file for each GPU of this machine or container."""
    return sorted(path for path in files.glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal())


def other_gpus(bus: str, driver: Path = _DRIVER, files: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the device files of all GPUs except the one at PCI address `bus`.

    Return none if the driver does not tell which file belongs to that GPU.
    """
    try:
        minor = re.search(r"Device Minor:\s*(\d+)", (driver / bus / "information").read_text())
    except OSError:
        return ()
    found = gpu_files(files)
    own = files / f"nvidia{minor.group(1)}" if minor else None
    return tuple(str(path) for path in found if path != own) if own in found else ()


def num_threads() -> int:
    """Return the number of threads of each model: all cores but one, which stays free for everything else.

    With a thread on every core, a parallel region waits for any thread that another process displaced. On 2
    busy cores a call of 1 ms took 50 ms.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"
