"""What the loopback Modal control plane remembers: apps, functions, calls and containers.

Ids are prefixed as Modal's are (`ap-`, `fu-`, `fc-`, `in-`, `ta-`). Only what an unmodified SDK asks for
is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from grpclib.server import Server
from modal_proto import api_pb2

GPU_TYPES = frozenset(
    {
        *("T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB"),
        *("RTX-PRO-6000", "H100", "H100!", "H200", "B200", "B200+"),
    }
)


@dataclass(slots=True)
class Knobs:
    """What a test can make go wrong, or slow; `ModalPlane.set` changes them while the plane runs.

    `capacity` bounds the containers of all functions together. `crash_at_start` makes containers die
    before they run anything. `container_env` is added to the environment of new containers.
    `expire_outputs` outputs are thrown away as expired; `hostile_outputs` are replaced by a pickle that
    creates the file `hostile_path` when it is loaded.
    """

    unavailable_gpus: list[str] = field(default_factory=list)
    capacity: int | None = None
    start_delay_s: float = 0.0
    crash_at_start: bool = False
    container_env: dict[str, str] = field(default_factory=dict)
    expire_outputs: int = 0
    hostile_outputs: int = 0
    hostile_path: str = ""


@dataclass(eq=False, slots=True)
class App:
    id: str
    name: str
    state: int
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Function:
    """A deployed function, or a variant of one bound to parameters and options: it scales on its own."""

    id: str
    app: App
    definition: api_pb2.Function
    definition_id: str
    params: bytes = b""
    queue: deque[Input] = field(default_factory=deque)
    num_starting: int = 0
    num_crashes: int = 0


@dataclass(eq=False, slots=True)
class Call:
    id: str
    function: Function
    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: list[api_pb2.FunctionGetOutputsItem] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Input:
    id: str
    call: Call
    item: api_pb2.FunctionPutInputsItem
    container: Container | None = None
    done: bool = False


@dataclass(eq=False, slots=True)
class Container:
    id: str
    function: Function
    folder: Path
    process: asyncio.subprocess.Process
    server: Server
    draining: bool = False
    crashed: bool = False
    inputs: dict[str, Input] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def gpu(self) -> str:
        return self.function.definition.resources.gpu_config.gpu_type

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class State:
    """All objects of one plane, and the condition that is notified when any of them changes."""

    def __init__(self, folder: Path, knobs: Knobs) -> None:
        self.folder, self.knobs = folder, knobs
        self.changed = asyncio.Condition()
        self.counts: Counter[str] = Counter()
        self.rpcs: Counter[str] = Counter()
        self.apps: dict[str, App] = {}
        self.deployed: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.variants: dict[bytes, Function] = {}
        self.calls: dict[str, Call] = {}
        self.containers: dict[str, Container] = {}
        self.mounts: dict[str, dict[str, str]] = {}
        self.files: dict[str, bytes] = {}
        self.images: dict[bytes, str] = {}
        self.image_definitions: dict[str, api_pb2.Image] = {}
        self._numbers: dict[str, itertools.count[int]] = {}
        self._notices: set[asyncio.Task[None]] = set()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers.setdefault(prefix, itertools.count(1)))}"

    def containers_of(self, function: Function) -> list[Container]:
        return [c for c in self.containers.values() if c.function is function and c.alive]

    @property
    def num_alive(self) -> int:
        return sum(container.alive for container in self.containers.values())

    def notify(self) -> None:
        """Wake every waiter; safe to call from anywhere on the plane's loop."""

        async def notify_all() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.ensure_future(notify_all())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)
