"""The sandboxes of one service: how they are isolated, and the configuration of each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.build.building import Built
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SCRATCH, SandboxConfig
from kbopt.evaluation.sandbox.forks import Role
from kbopt.evaluation.server.devices import Device, num_threads
from kbopt.evaluation.server.judge_handle import JudgeHandle

_CPU_MEMORY_BYTES = 4 * 2**30
"""Memory of a sandbox on a CPU in bytes, unless the host has little or much more."""
_WITHOUT: tuple[tuple[str, ...], ...] = (
    (),
    ("user",),
    ("processes",),
    ("user", "processes"),
    ("user", "processes", "mounts", "network"),
)
"""Kinds of isolation to leave out for CUDA, in the order of trial: the strongest sandbox first."""
_PROBE_TASK = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2


def get_inputs():
    return [torch.rand(1024)]


def get_init_inputs():
    return []
"""


class Sandboxes:
    """Configures and starts sandboxes. `available_bytes` returns the host memory for all requests."""

    def __init__(
        self,
        fork_server: ForkServerHandle,
        device: Device,
        state_dir: Path,
        environ: Mapping[str, str],
        boot: str,
        available_bytes: Callable[[], int],
    ) -> None:
        self._fork_server = fork_server
        self._device = device
        self._state_dir = state_dir
        self._environ = environ
        self._boot = boot
        self._available_bytes = available_bytes
        self._serials = itertools.count(1)
        self._without: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()

    @property
    def is_isolated(self) -> bool:
        return self._fork_server.isolates and not self._without

    @property
    def isolation(self) -> str:
        parts = [self._fork_server.isolation]
        if self._without:
            parts.append(f"but for CUDA without {', '.join(self._without)}")
        if self._device.num_gpus > 1:
            parts.append(f"other GPUs of the machine {'hidden' if self._hidden else 'in sight'}")
        return ", ".join(parts)

    def find_working(self) -> None:
        """Find the strongest sandbox with which the judge can share GPU memory, and use it from now on.

        It hides the other GPUs if it can. Some drivers do not share memory with another user or another PID
        namespace, so that kind of isolation is left out. Raises InfraError if no sandbox works.
        """
        task = Task(name="probe", source=_PROBE_TASK)
        request = EvalRequest(task=task, source="", protocol=EvalProtocol())
        seen: list[str] = []
        others = self._device.others if "mounts" in self._fork_server.isolation else ()
        tried = [(hidden, without) for hidden in dict.fromkeys((others, ())) for without in _WITHOUT]
        for hidden, without in tried:
            if hidden and "mounts" in without:
                continue  # Devices can be hidden only in a mount namespace.
            self._hidden, self._without = hidden, without
            try:
                with closing(JudgeHandle(self._fork_server, request, self._device, self.config())) as probe:
                    probe.admit()
            except (InfraError, UserError) as error:
                hiding = "hiding other GPUs, " if hidden else ""
                seen.append(f"{hiding}without {', '.join(without) or 'nothing'}: {error}")
            else:
                return
        raise InfraError(f"no sandbox in which GPU memory can be shared: {'; '.join(seen)}")

    def child(self, built: Built | None = None, role: Role = "measure") -> Child:
        return Child(self._fork_server, role, self.config(built))

    def config(self, built: Built | None = None, *, build_writable: bool = False) -> SandboxConfig:
        serial = next(self._serials)
        available_bytes = self._available_bytes()
        memory_bytes = available_bytes // 2
        if not self._device.is_cuda:
            memory_bytes = min(available_bytes * 3 // 4, max(_CPU_MEMORY_BYTES, available_bytes // 8))
        return SandboxConfig(
            memory_bytes=memory_bytes,
            address_space=not self._device.is_cuda,
            environ={
                **self._environ,
                "TORCH_EXTENSIONS_DIR": built.folder if built else str(SCRATCH),
                "OMP_NUM_THREADS": str(num_threads()),
                "KINETO_LOG_LEVEL": "99",
            },
            scratch_fallback=str(self._state_dir / "scratch" / f"{self._boot}-{serial}"),
            serial=os.getpid() + serial,
            build=built.folder if built else "",
            build_writable=build_writable,
            readable=built.readable if built else (),
            hidden=self._hidden,
            without=self._without,
        )
