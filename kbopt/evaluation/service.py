"""The supervisor: takes requests as JSON lines, runs each through build, check and timing, answers.

One request is one thread, written as plain sequential code; the device lease and the zygote are what they
share. Nothing here executes or imports a candidate, a task or torch.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import (
    CompileFailed,
    Crashed,
    EvalProtocol,
    EvalRequest,
    KernelBenchVerdict,
    Outcome,
    Result,
    Seconds,
    Span,
    Task,
    TimedOut,
)
from kbopt.evaluation import feedback, linux, verdicts
from kbopt.evaluation.building import Builder
from kbopt.evaluation.children import Child, ZygoteHandle, crash_from
from kbopt.evaluation.sandbox import SCRATCH, Limits, SandboxConfig, scrubbed
from kbopt.evaluation.wire import Channel, ChannelClosed, WireError

_MAX_CONCURRENT = 64
_MAX_REFEREES = 4
_ADMISSION_S = 300.0
_REFEREE_GRACE_S = 300.0
_KERNELBENCH_LEAST_S = 2.0
_WARM_UP_S = 30.0
_NUM_WAITING = 2
_CPU_MEMORY_BYTES = 4 * 2**30
_SERVE_STDIN_LIMIT_BYTES = 16 * 2**20

_SANDBOXES_FOR_CUDA: tuple[tuple[str, ...], ...] = (
    (),
    ("user",),
    ("processes",),
    ("user", "processes"),
    ("user", "processes", "mounts", "network"),
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`torch` is how torch names it (`cpu`, `cuda:0`), `name` how results do."""

    torch: str
    name: str
    hardware: str

    @property
    def is_cuda(self) -> bool:
        return self.torch.startswith("cuda")


class Service:
    """Evaluates requests on one device; `evaluate` may be called from many threads."""

    def __init__(self, device: str, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._state_dir = state_dir
        self._environ = scrubbed(os.environ)
        self._zygote = ZygoteHandle(state_dir, os.environ)
        self.device = find_device(device, self._zygote)
        self.boot = uuid.uuid4().hex[:12]
        self.started = time.time()
        self._lease = threading.Lock()
        self._serial_lock = threading.Lock()
        self._serial = 0
        self._referees: OrderedDict[tuple[str, str, bool], _Referee] = OrderedDict()
        self._builder = Builder(
            state_dir / "builds", flavour=f"{self._zygote.torch_version}/{self.device.hardware}"
        )
        self._without: tuple[str, ...] = ()
        if self.device.is_cuda:
            self._without = self._find_working_sandbox()
        self._waiting_slots = threading.BoundedSemaphore(1 + _NUM_WAITING)
        self._build_slots = threading.BoundedSemaphore(os.cpu_count() or 1)

    def about(self) -> dict[str, Any]:
        return {
            "device": self.device.name,
            "boot": self.boot,
            "started": self.started,
            "pid": os.getpid(),
            "isolation": self._zygote.isolation
            + (f", but for CUDA without {', '.join(self._without)}" if self._without else ""),
        }

    def evaluate(self, request: EvalRequest) -> Result:
        """Judge one source. Raises UserError for a task that cannot be scored, InfraError."""
        timeline = _Timeline()
        if self.device.is_cuda:
            with self._build_slots:
                failed = self._build(request, timeline)
            if failed is None:
                # Two candidates at most wait with a child of their own, its CUDA context ready.
                with self._waiting_slots, closing(self._children(request)) as children:
                    children.warm_up(self.device.torch)
                    with self._lease:
                        return self._measure(request, timeline, children)
        else:
            # On the CPU a build would disturb the timing of another candidate: it needs the lease too.
            with self._lease:
                failed = self._build(request, timeline)
                if failed is None:
                    with closing(self._children(request)) as children:
                        return self._measure(request, timeline, children)
        outcome, log = failed
        verdict = verdicts.kernelbench_failure(outcome, self.device.hardware, self.device.torch)
        return self._result(request, timeline, outcome, verdict, log=log)

    def close(self) -> None:
        for referee in self._referees.values():
            referee.close()
        self._zygote.close()

    def _find_working_sandbox(self) -> tuple[str, ...]:
        """What a sandbox has to leave out for GPU memory to be shared with it.

        Drivers differ in whether they hand memory to another user, or across process namespaces.
        """
        task = Task(name="probe", source=_PROBE_TASK)
        request = EvalRequest(task=task, source="", protocol=EvalProtocol())
        seen: list[str] = []
        for without in _SANDBOXES_FOR_CUDA:
            self._without = without
            try:
                _Referee(self._zygote, request, self.device.torch, self._sandbox()).close()
            except (InfraError, UserError) as error:
                seen.append(f"without {', '.join(without) or 'nothing'}: {error}")
            else:
                return without
        raise InfraError(f"no sandbox in which GPU memory can be shared: {'; '.join(seen)}")

    def _build(self, request: EvalRequest, timeline: _Timeline) -> tuple[Outcome, str] | None:
        """What went wrong, with the compiler's output; None once the source is built."""
        started = time.time()
        try:
            if self._builder.is_built(request.source):
                return None
            return self._build_in_child(request)
        finally:
            timeline.add("compile", started, time.time() - started)

    def _build_in_child(self, request: EvalRequest) -> tuple[Outcome, str] | None:
        config = self._sandbox(build=str(self._builder.folder(request.source)), build_writable=True)
        with (
            self._builder.building(request.source, config.uid) as build,
            closing(Child(self._zygote, "build", config)) as child,
        ):
            channel = Channel(child.data)
            limit_s = request.protocol.compile_timeout_s
            try:
                channel.send({"source": request.source})
                reply = channel.receive(limit_s)
            except TimeoutError:
                reason = f"importing the source, which builds it, took longer than {limit_s:g} s"
                return TimedOut(reason=reason, stage="compile", limit_s=limit_s), child.log
            except (ChannelClosed, WireError):
                return crash_from(child.end()), child.log
            child.close()
            if "built" in reply:
                build.keep()
                return None
            if "rejected_source" in reply:
                return CompileFailed(reason=str(reply["rejected_source"])), child.log
            return CompileFailed(reason=verdicts.raised_text(reply["raised"])), child.log

    def _children(self, request: EvalRequest) -> _Children:
        build = str(self._builder.folder(request.source))
        strict = Child(self._zygote, "measure", self._sandbox(build=build))
        try:
            kernelbench = Child(self._zygote, "kernelbench", self._sandbox(build=build))
        except InfraError:
            strict.close()
            raise
        return _Children(strict, kernelbench)

    def _measure(self, request: EvalRequest, timeline: _Timeline, children: _Children) -> Result:
        referee = self._referee(request)
        child = children.strict
        answer = referee.judge(request, child)
        if answer["outcome"] is None:
            outcome: Outcome = crash_from(child.end())
        else:
            outcome = codec.decode(Outcome, answer["outcome"])
        child.close()
        for stage, started, seconds in answer["spans"]:
            timeline.add(stage, started, seconds)
        timeline.device_s = answer["device_s"]
        left_s = request.protocol.timeout_s - answer["busy_s"]
        started = time.time()
        verdict = self._kernelbench(request, referee, outcome, children.kernelbench, left_s)
        timeline.add("time", started, time.time() - started)
        return self._result(request, timeline, outcome, verdict, log=child.log, frames=answer["frames"])

    def _kernelbench(
        self, request: EvalRequest, referee: _Referee, outcome: Outcome, child: Child, left_s: float
    ) -> KernelBenchVerdict:
        device, protocol = self.device, request.protocol
        if isinstance(outcome, CompileFailed | Crashed | TimedOut):
            return verdicts.kernelbench_failure(outcome, device.hardware, device.torch)
        channel = Channel(child.data, _SERVE_STDIN_LIMIT_BYTES)
        try:
            channel.send(
                {
                    "op": "judge",
                    "task_source": request.task.source,
                    "source": request.source,
                    "device": device.torch,
                    "threads": _num_threads(),
                    "precision": protocol.precision,
                    "trials": protocol.trials,
                    "timed": protocol.timed,
                    "allow_tf32": protocol.allow_tf32,
                }
            )
            raw = channel.receive(max(_KERNELBENCH_LEAST_S, left_s))
        except TimeoutError:
            late = TimedOut(reason="timed out", stage="time", limit_s=protocol.timeout_s)
            return verdicts.kernelbench_failure(late, device.hardware, device.torch)
        except (ChannelClosed, WireError):
            return verdicts.kernelbench_failure(crash_from(child.end()), device.hardware, device.torch)
        finally:
            child.close()
        return verdicts.kernelbench_from(raw, referee.kernelbench_reference(protocol.timed))

    def _referee(self, request: EvalRequest) -> _Referee:
        protocol = request.protocol
        key = (request.task.key, protocol.precision, protocol.allow_tf32)
        referee = self._referees.pop(key, None)
        if referee is None or not referee.alive:
            while len(self._referees) >= _MAX_REFEREES:
                self._referees.popitem(last=False)[1].close()
            referee = _Referee(self._zygote, request, self.device.torch, self._sandbox())
        self._referees[key] = referee
        return referee

    def _sandbox(self, *, build: str = "", build_writable: bool = False) -> SandboxConfig:
        with self._serial_lock:
            self._serial += 1
            serial = self._serial
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory_bytes = machine_bytes // 2
        if not self.device.is_cuda:
            memory_bytes = min(memory_bytes, max(_CPU_MEMORY_BYTES, machine_bytes // 8))
        return SandboxConfig(
            limits=Limits(memory_bytes=memory_bytes, address_space=not self.device.is_cuda),
            environ={
                **self._environ,
                "TORCH_EXTENSIONS_DIR": build,
                "OMP_NUM_THREADS": str(_num_threads()),
                "KINETO_LOG_LEVEL": "99",
                "TRITON_CACHE_DIR": f"{build or SCRATCH}/triton",
            },
            scratch_fallback=str(self._state_dir / "scratch" / f"{self.boot}-{serial}"),
            serial=os.getpid() + serial,
            build=build,
            build_writable=build_writable,
            without=self._without,
        )

    def _result(
        self,
        request: EvalRequest,
        timeline: _Timeline,
        outcome: Outcome,
        kernelbench: KernelBenchVerdict,
        *,
        log: str,
        frames: str = "",
    ) -> Result:
        return Result(
            outcome=outcome,
            feedback=feedback.for_outcome(outcome, frames, log),
            device=self.device.name,
            protocol=request.protocol.id,
            boot=self.boot,
            seconds=timeline.seconds(),
            device_s=timeline.device_s,
            spans=timeline.spans(),
            kernelbench=kernelbench,
            log=log,
        )


class _Children:
    """The two sandboxed processes that one candidate gets."""

    def __init__(self, strict: Child, kernelbench: Child) -> None:
        self.strict = strict
        self.kernelbench = kernelbench

    def warm_up(self, device: str) -> None:
        """Create their CUDA contexts. A child that dies of it is found dead when it is used."""
        for child in (self.strict, self.kernelbench):
            channel = Channel(child.data)
            with suppress(ChannelClosed, TimeoutError, WireError):
                channel.send({"op": "warm", "device": device})
        for child in (self.strict, self.kernelbench):
            with suppress(ChannelClosed, TimeoutError, WireError):
                Channel(child.data).receive(_WARM_UP_S)

    def close(self) -> None:
        self.strict.close()
        self.kernelbench.close()


class _Timeline:
    """Collects the spans of one evaluation; what lies between them was spent waiting."""

    def __init__(self) -> None:
        self._started = time.time()
        self._spans: list[Span] = []
        self.device_s = 0.0

    def add(self, stage: Any, started: float, seconds: float) -> None:
        self._spans.append(Span(stage=stage, start=started, seconds=seconds))

    def spans(self) -> tuple[Span, ...]:
        queue = Span(stage="queue", start=self._started, seconds=self.seconds().queue)
        return (queue, *self._spans)

    def seconds(self) -> Seconds:
        spent = {"compile": 0.0, "check": 0.0, "time": 0.0}
        for span in self._spans:
            spent[span.stage] += span.seconds
        total = max((span.start + span.seconds for span in self._spans), default=time.time()) - self._started
        return replace(Seconds(**spent), queue=max(0.0, total - sum(spent.values())))


class _Referee:
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
            "threads": _num_threads(),
            "warden": self._child.warden_pid,
        }
        late = (
            f"admission test 'the reference runs' failed: task {request.task.name} was not admitted within "
            f"{_ADMISSION_S:g} s; make its inputs smaller"
        )
        self._ask(start, self._child.fds, _ADMISSION_S, late)

    def judge(self, request: EvalRequest, child: Child) -> dict[str, Any]:
        job = {
            "op": "judge",
            "source": request.source,
            "protocol": codec.encode(request.protocol),
            "warden": child.warden_pid,
        }
        limit_s = request.protocol.timeout_s * 2 + _REFEREE_GRACE_S
        late = f"the reference of task {request.task.name} was too slow to judge within {limit_s:g} s"
        return self._ask(job, child.fds, limit_s, late)

    def kernelbench_reference(self, timed: int) -> dict[str, float]:
        if timed not in self._kernelbench:
            job = {"op": "kernelbench", "timed": timed}
            late = f"timing the reference took longer than {_REFEREE_GRACE_S:g} s"
            self._kernelbench[timed] = self._ask(job, (), _REFEREE_GRACE_S, late)["stats"]
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


def find_device(wanted: str, zygote: ZygoteHandle) -> Device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`. Raises UserError where there is none."""
    if wanted != "cpu":
        channel, _ = zygote.spawn_trusted("probe")
        with closing(channel):
            seen = channel.receive(_ADMISSION_S)
        if seen["cuda"]:
            index = int(wanted.partition(":")[2] or 0)
            if index >= len(seen["cuda"]):
                raise UserError(
                    f"there is no device {wanted}; this machine has {len(seen['cuda'])} CUDA devices"
                )
            name = seen["cuda"][index]
            return Device(torch=f"cuda:{index}", name=name, hardware=name)
        if wanted != "auto":
            raise UserError(
                f"device {wanted!r} was asked for, and torch finds no CUDA device; use --device cpu"
            )
    return Device(torch="cpu", name=f"{_cpu_name()}, {_num_threads()} threads", hardware="cpu")


def _num_threads() -> int:
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


def serve(device: str, state_dir: Path, requests: TextIO, replies: TextIO) -> None:
    """Answer requests until `requests` ends. One JSON line each way; answers come as they are ready."""
    lock = threading.Lock()

    def reply(message: dict[str, Any]) -> None:
        with lock:
            replies.write(json.dumps(message, separators=(",", ":")) + "\n")
            replies.flush()

    try:
        service = Service(device, state_dir)
    except UserError as error:
        reply({"user_error": str(error)})
        return
    except InfraError as error:
        reply({"infra_error": str(error)})
        return
    reply({"ready": service.about()})

    def answer(number: int, raw: Any) -> None:
        try:
            result = service.evaluate(codec.decode(EvalRequest, raw))
            reply({"id": number, "result": codec.encode(result)})
        except (UserError, codec.CodecError) as error:
            reply({"id": number, "user_error": str(error)})
        except InfraError as error:
            reply({"id": number, "infra_error": str(error)})
        except BaseException as error:
            # A defect of the service must reach the caller, who would otherwise wait forever.
            reply({"id": number, "infra_error": f"{type(error).__name__}: {error}"})
            raise

    with ThreadPoolExecutor(_MAX_CONCURRENT) as pool:
        for line in requests:
            message = json.loads(line)
            pool.submit(answer, message["id"], message["request"])
        pool.shutdown(wait=False, cancel_futures=True)
        service.close()
        os._exit(0)


def main(device: str, state_dir: Path) -> None:
    """Serve standard input and output, and end with the process that started this one."""
    linux.die_with_parent()
    linux.hide_memory()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever prints by mistake must not corrupt the protocol.
    serve(device, state_dir, sys.stdin, replies)
