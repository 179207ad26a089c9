"""The supervisor's handle on a referee and on the child that plays the reference for it."""

from __future__ import annotations

from typing import Any

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import EvalRequest
from kbopt.evaluation.children import Child, ZygoteHandle
from kbopt.evaluation.devices import num_threads
from kbopt.evaluation.sandbox import SandboxConfig
from kbopt.evaluation.wire import ChannelClosed

_ADMISSION_S = 300.0
_GRACE_S = 300.0


class RefereeHandle:
    """The supervisor's handle on a referee. Used under the device lease only."""

    def __init__(
        self, zygote: ZygoteHandle, request: EvalRequest, device: str, sandbox: SandboxConfig
    ) -> None:
        self._zygote = zygote
        self._child = Child(zygote, "measure", sandbox)
        self._channel, self._pid = zygote.spawn_trusted("referee")
        self._kernelbench: dict[int, dict[str, float]] = {}
        self.alive = True
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

    def kernelbench_reference(self, timed: int) -> dict[str, float]:
        if timed not in self._kernelbench:
            job = {"op": "kernelbench", "timed": timed}
            late = f"timing the reference took longer than {_GRACE_S:g} s"
            self._kernelbench[timed] = self._ask(job, (), _GRACE_S, late)["stats"]
        return self._kernelbench[timed]

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
        return answer
