"""The supervisor's memory of inputs that `public_inputs.draw` drew in a process of its own. No torch here."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from kbopt.core.types import EvalRequest
from kbopt.evaluation.children import ZygoteHandle
from kbopt.evaluation.keyed_locks import KeyedLocks
from kbopt.evaluation.wire import ChannelClosed, Message, WireError

_DRAW_S = 120.0
_MOST_BYTES = 32 * 2**30
"""In a container the machine's memory is more than one may use. All sixteen matmul tasks take 25 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the drawing process answered, and the memory in which the sets lie."""

    header: Message
    memory: BinaryIO


class DrawnInputs:
    """By task, at most a quarter of the machine's memory; the least recently used go first."""

    def __init__(self, zygote: ZygoteHandle) -> None:
        self._zygote = zygote
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._limit_bytes = min(_MOST_BYTES, machine_bytes // 4)
        self._kept: OrderedDict[tuple[str, str, int], Drawn | None] = OrderedDict()
        self._lock = threading.Lock()
        self._drawing = KeyedLocks()

    def of(self, request: EvalRequest) -> Drawn | None:
        """The inputs of the request's task, drawn at the first call; None where children draw their own."""
        key = (request.task.key, request.protocol.precision, request.protocol.trials)
        with self._drawing.of(key):
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            drawn = self._draw(request)
            with self._lock:
                self._kept[key] = drawn
                while self._size_bytes() > self._limit_bytes:
                    self._kept.popitem(last=False)
            return drawn

    def close(self) -> None:
        for drawn in self._kept.values():
            if drawn is not None:
                drawn.memory.close()
        self._kept.clear()

    def _draw(self, request: EvalRequest) -> Drawn | None:
        job = {
            "source": request.task.source,
            "precision": request.protocol.precision,
            "trials": request.protocol.trials,
            "limit_bytes": self._limit_bytes,
        }
        channel, pid = self._zygote.spawn_trusted("draw")
        with closing(channel):
            try:
                channel.send(job)
                header = channel.receive(_DRAW_S)
            except (ChannelClosed, TimeoutError, WireError):
                return None
            finally:
                self._zygote.kill(pid)
            fds = channel.take_fds()
        return Drawn(header=header, memory=os.fdopen(fds[0], "rb")) if fds else None

    def _size_bytes(self) -> int:
        return sum(drawn.header["size_bytes"] for drawn in self._kept.values() if drawn is not None)
