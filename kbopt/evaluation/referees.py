"""The supervisor's handle on a referee and on the child that plays the reference for it."""

from __future__ import annotations

from typing import Any

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import EvalRequest
from kbopt.evaluation.children import Child, ZygoteHandle
from kbopt.evaluation.devices import num_threads
from kbopt.evaluation.drawn_inputs import Drawn
from kbopt.evaluation.sandbox import SandboxConfig
from kbopt.evaluation.wire import ChannelClosed

_ADMISSION_S = 300.0
_GRACE_S = 300.0


class RefereeHandle:
    """The supervisor's handle on a referee. Used under the device lease only.

    `free_share` of the device's memory was not taken by anybody after the latest answer, `taken_share` is
    what it came to since this referee was started.
    """

    def __init__(
        self,
        zygote: ZygoteHandle,
        request: EvalRequest,
        device: str,
        sandbox: SandboxConfig,
        free_share: float = 1.0,
    ) -> None:
        self._zygote = zygote
        self._child = Child(zygote, "measure", sandbox)
        self._channel, self._pid = zygote.spawn_trusted("referee")
        self.alive = True
        self.free_share = self._free_before = free_share
        start = {
            "source": request.task.source,
            "precision": request.protocol.precision,
            "allow_tf32": request.protocol.allow_tf32,
            "device": device,
            "threads": num_threads(),
            "warden": self._child.warden_pid,
        }
        late = (
            f"admission test 'the reference runs' failed: task {request.task.name} was not admitted within "
            f"{_ADMISSION_S:g} s; make its inputs smaller"
        )
        self._ask(start, self._child.fds, _ADMISSION_S, late)

    @property
    def taken_share(self) -> float:
        return max(0.0, self._free_before - self.free_share)

    def judge(self, request: EvalRequest, child: Child, setup: str) -> dict[str, Any]:
        job = {
            "op": "judge",
            "source": request.source,
            "setup": setup,
            "protocol": codec.encode(request.protocol),
            "warden": child.warden_pid,
        }
        limit_s = request.protocol.timeout_s * 2 + _GRACE_S
        late = f"the reference of task {request.task.name} was too slow to judge within {limit_s:g} s"
        return self._ask(job, child.fds, limit_s, late)

    def kernelbench(
        self,
        request: EvalRequest,
        child: Child,
        setup: str,
        device: str,
        limit_s: float,
        drawn: Drawn | None,
    ) -> dict[str, Any]:
        """What the child answers by KernelBench's protocol, see `public_inputs.converse`, and `stats`."""
        protocol = request.protocol
        job = {
            "op": "kernelbench",
            "limit_s": limit_s,
            "drawn": drawn.header if drawn is not None else None,
            "request": {
                "op": "judge",
                "task_source": request.task.source,
                "source": request.source,
                "setup": setup,
                "device": device,
                "threads": num_threads(),
                "precision": protocol.precision,
                "trials": protocol.trials,
                "timed": protocol.timed,
                "allow_tf32": protocol.allow_tf32,
            },
        }
        late = f"KernelBench's protocol took longer than {limit_s + _GRACE_S:g} s with the reference"
        memory = (drawn.memory.fileno(),) if drawn is not None else ()
        return self._ask(job, (*child.fds, *memory), limit_s + _GRACE_S, late)

    def close(self) -> None:
        self.alive = False
        self._channel.close()
        self._child.close()
        self._zygote.kill(self._pid)

    def _ask(self, job: dict[str, Any], fds: tuple[int, ...], limit_s: float, late: str) -> dict[str, Any]:
        try:
            self._channel.send(job, fds)
            answer = self._channel.receive(limit_s)
        except TimeoutError:
            self.close()
            raise UserError(late) from None
        except ChannelClosed:
            self.close()
            raise InfraError(
                "the process that holds the reference ended; the service's log says why"
            ) from None
        if "task_error" in answer:
            self.close()
            raise UserError(str(answer["task_error"]))
        self.free_share = answer.get("free_share", self.free_share)
        return answer
