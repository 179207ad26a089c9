"""The supervisor's handle on the judge of one task and on the worker that runs its reference."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Stage
from kbopt.evaluation import messages
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle, signal_name, warm_up
from kbopt.evaluation.sandbox.confinement import SandboxConfig
from kbopt.evaluation.sandbox.memory import REMEDY, SERVICE_BYTES, KilledForMemory, gib
from kbopt.evaluation.server.devices import Device, num_threads
from kbopt.evaluation.transport.channel import ChannelClosed

T = TypeVar("T", bound=messages.FromJudge)

Entered = Callable[[Stage], None]
"""Hears which stage a candidate is in now."""

_START_S = 120.0
"""Seconds for a judge to start."""
_ADMISSION_S = 300.0
"""Seconds for the device's part of an admission, the reference's runs included."""
_DRAW_S = 120.0
"""Seconds to construct the task's model, and to draw its inputs once."""
_GRACE_S = 300.0
"""Seconds for the reference's part of a judgement, beyond twice the candidate's `timeout_s`."""


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE)
"""Signals by which a task's own code ends its process on a CPU. Others have other senders: the kernel, for a
full /dev/shm (SIGBUS), an operator, or a torch that was built for another CPU (SIGILL). On a GPU its driver
aborts the process when the device falls off."""
_DURING: dict[type[messages.ToJudge], str] = {
    messages.Construct: "while its source was loaded and Model(*get_init_inputs()) was made",
    messages.Weigh: "in get_inputs()",
    messages.Size: "in get_inputs() or Model.forward",
    messages.Admit: "in get_inputs() or Model.forward",
    messages.Describe: "while Model.forward was timed",
    messages.Judge: "while a kernel was compared with it",
    messages.TimeAgain: "while a kernel was timed beside it",
}
"""What of a task a judge runs to answer a message."""


class NoMemory(UserError):
    """The task does not fit into the device memory that other tasks have left."""


class JudgeHandle:
    """The supervisor's handle on one judge. To start it and to `construct` needs no lease; all else does.

    `request` is the request that it was started for. Shares are of the device's memory: `free_share` was free
    after the latest answer, `taken_share` was taken by admission, and judging a candidate takes
    `needed_share` more. Admission took `admission_s` seconds. Methods raise UserError for a task that cannot
    be scored, and InfraError.
    """

    def __init__(
        self, fork_server: ForkServerHandle, request: EvalRequest, device: Device, sandbox: SandboxConfig
    ) -> None:
        self.request = request
        self._kills = fork_server.host.num_kills()
        self._memory_bytes = sandbox.memory_bytes
        self._fork_server = fork_server
        self._device = device
        self._child = Child(fork_server, "measure", sandbox)
        self._channel, self._pid = fork_server.spawn_judge()
        self._lock = threading.Lock()
        self.alive = True
        self.admitted = self._constructed = False
        self.admission_s = 0.0
        self.free_share = 1.0
        self.taken_share = self.needed_share = 0.0
        start = messages.Start(
            source=request.task.source,
            protocol=request.protocol,
            device=device.torch,
            threads=num_threads(),
            memory_bytes=fork_server.host.usable_bytes - SERVICE_BYTES,
            init=self._child.init_pid,
        )
        late = InfraError(f"the process that holds the reference did not start within {_START_S:g} s")
        self._ask(start, messages.Done, _START_S, late, self._child.fds)
        if device.is_cuda:
            warm_up([self._child], device.torch)

    @property
    def pids(self) -> tuple[int, int]:
        """The processes of the judge and of the sandbox of the reference's worker."""
        return self._pid, self._child.init_pid

    def construct(self) -> None:
        """Load the task and construct its model, once. It may take ten seconds, so it needs no lease."""
        if self._constructed:
            return
        started, name = time.monotonic(), self.request.task.name
        failed = f"admission test 'the reference runs' failed: of task {name} Model(*get_init_inputs())"
        self._ask(messages.Construct(), messages.Done, _DRAW_S, _late(failed, _DRAW_S))
        self._constructed = True
        self.admission_s = time.monotonic() - started

    def admit(
        self,
        free_share: float = 1.0,
        learned: Callable[[messages.Sizes], None] = lambda _: None,
        make_room: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Find out once whether the task can be scored. Raises UserError if not.

        `learned` is called with the size of the task's data, before the reference runs and afterwards, and
        raises if it is too much. `make_room` is called with the share of the device's memory that admission
        takes.
        """
        if self.admitted:
            return
        self.construct()
        started, name = time.monotonic(), self.request.task.name
        late = _late(f"admission test 'the reference runs' failed: of task {name} get_inputs()", _DRAW_S)
        learned(self._ask(messages.Weigh(), messages.Sizes, _DRAW_S, late))
        late = UserError(
            f"admission test 'the reference runs' failed: task {name} was not admitted "
            f"within {_ADMISSION_S:g} s; make its inputs smaller"
        )
        make_room(self._ask(messages.Size(), messages.DeviceShare, _ADMISSION_S, late).share)
        ready = self._ask(messages.Admit(), messages.Ready, _ADMISSION_S, late)
        self.needed_share = ready.needed_share
        self.taken_share = max(0.0, free_share - self.free_share)
        self.admitted = True
        self.admission_s += time.monotonic() - started
        learned(ready.sizes)

    def describe(self) -> messages.Description:
        late = UserError(
            f"the reference of task {self.request.task.name} was not timed within {_GRACE_S:g} s"
        )
        return self._ask(messages.Describe(), messages.Description, _GRACE_S, late)

    def judge(
        self,
        request: EvalRequest,
        child: Child,
        setup: str,
        arithmetic: Sequence[str] = (),
        entered: Entered = lambda _: None,
    ) -> messages.Verdict:
        """Return the verdict on the candidate in `child`. The rest is as in `messages.Judge`.

        `entered` is called with each stage after the first, the check.
        """
        job = messages.Judge(
            source=request.source,
            setup=setup,
            protocol=request.protocol,
            init=child.init_pid,
            held_out=request.baselines,
            arithmetic=tuple(arithmetic),
        )
        return self._judged(job, child.fds, entered)

    def time(
        self,
        request: EvalRequest,
        child: Child,
        setup: str,
        reference: Child,
        entered: Entered = lambda _: None,
    ) -> messages.Verdict:
        """Judge a candidate again and return its times, in a new `child` beside a new `reference`.

        `reference` runs the task's reference from now on, and this handle closes it.
        """
        before, self._child = self._child, reference
        job = messages.TimeAgain(
            source=request.source,
            setup=setup,
            protocol=request.protocol,
            init=child.init_pid,
            reference_init=reference.init_pid,
            held_out=request.baselines,
        )
        try:
            return self._judged(job, (*child.fds, *reference.fds), entered)
        finally:
            before.close()

    def _judged(self, job: messages.Judge, fds: tuple[int, ...], entered: Entered) -> messages.Verdict:
        limit_s = job.protocol.timeout_s * 2 + _GRACE_S
        late = UserError(
            f"the reference of task {self.request.task.name} was too slow to judge within {limit_s:g} s"
        )
        return self._ask(job, messages.Verdict, limit_s, late, fds, entered)

    def close(self) -> None:
        self.alive = False
        self.taken_share = 0.0
        self._channel.close()
        self._fork_server.kill(self._pid)
        self._child.close()

    def _ask(
        self,
        job: messages.ToJudge,
        expected: type[T],
        limit_s: float,
        late: UserError | InfraError,
        fds: tuple[int, ...] = (),
        entered: Entered = lambda _: None,
    ) -> T:
        deadline = time.monotonic() + limit_s
        try:
            with self._lock:
                self._channel.send(codec.encode(job), fds)
                answer = self._received(deadline)
                while isinstance(answer.content, messages.Entered):
                    entered(answer.content.stage)
                    answer = self._received(deadline)
        except TimeoutError:
            self.close()
            raise late from None
        except ChannelClosed:
            error = self._end_error(job)
            self.close()
            raise error from None
        if isinstance(answer.content, messages.TaskFault):
            error = self._task_error(answer.content)
            self.close()
            raise error
        self.free_share = answer.free_share
        if not isinstance(answer.content, expected):
            raise TypeError(f"{type(answer.content).__name__} is no answer to {type(job).__name__}")
        return answer.content

    def _received(self, deadline: float) -> messages.Answer:
        message = self._channel.receive(deadline - time.monotonic())
        answer: messages.Answer = codec.decode(messages.Answer, message)
        return answer

    def _end_error(self, job: messages.ToJudge) -> UserError | InfraError:
        """Return the error for a judge that ended instead of answering `job`."""
        # If another thread has closed the judge, its exit code says nothing.
        code = self._fork_server.exit_code(self._pid) if self.alive else None
        name, log = self.request.task.name, self._fork_server.log
        if code == -signal.SIGKILL and self._fork_server.host.num_kills() > self._kills:
            return KilledForMemory(f"the judge of task {name}", of_judge=True)
        during = _DURING.get(type(job), "")
        if code is None or code == messages.RAISED or not during:
            return InfraError(f"the process that holds the reference ended; {log} says why")
        how = f"exit code {code}" if code >= 0 else signal_name(-code)
        if code < 0 and (self._device.is_cuda or -code not in _CRASHES):
            return InfraError(f"the process that holds the reference was ended by {how}; {log} may say why")
        test = "" if self.admitted else "admission test 'the reference runs' failed: "
        remedy = (
            "take out what ends its process, such as os._exit()"
            if code >= 0
            else f"{log} has the line; run the task's file by itself"
        )
        return UserError(f"{test}task {name} ended the process that holds it, by {how}, {during}; {remedy}")

    def _task_error(self, fault: messages.TaskFault) -> UserError | InfraError:
        """Return the error for a judge's message about its task, and how the reference's worker ended."""
        text = fault.reason
        if fault.no_memory:
            return NoMemory(text)
        name = self.request.task.name
        if not fault.died:
            # Whoever wrote the task has the file to mend; of a sweep's tasks, some have gradients.
            names_it = self.request.task.is_path or failed_test(text) == "differentiable"
            return UserError(f"task {name}: {text}" if names_it else text)
        try:
            crash = self._child.crash()
        except KilledForMemory:
            return KilledForMemory(f"the reference's worker of task {name}", of_judge=True)
        if crash.how == f"exit {messages.RAISED}":
            return InfraError(f"the process that holds the reference ended; {self._fork_server.log} says why")
        may = f"may use {gib(self._memory_bytes)} of host memory, {self._fork_server.host.source}"
        remedy = f"; it {may}; {REMEDY}" if crash.how == "out of memory" else ""
        return UserError(f"the child of task {name}'s reference ended: {text}: {crash.reason}{remedy}")


def failed_test(message: str) -> str:
    """Return the admission test that an error's message names, or "" if it names none."""
    found = re.search(r"admission test '([^']*)' failed", message)
    return found[1] if found else ""


def _late(what: str, limit_s: float) -> UserError:
    return UserError(f"{what} took longer than {limit_s:g} s; make the task's inputs smaller")
