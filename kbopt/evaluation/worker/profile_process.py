"""The tiers of a profile, each in a sandboxed process: machine code, a trace, and hardware counters.

A candidate can forge what they say, because its code runs in them or made what they read. So
`server.profiling` believes none of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch._C._profiler import _RecordFunctionFast

import kbopt
from kbopt.core import codec
from kbopt.core.profile import Code, KernelCode, Missing, Trace
from kbopt.evaluation.build.machine_code import disassembler, printed
from kbopt.evaluation.messages import CallBoth, Dissect, Go, NeedsDevice, Raised, SourceRefused
from kbopt.evaluation.profile import cpu_code, gpu_code, ncu_report, trace_events
from kbopt.evaluation.transport.channel import Channel
from kbopt.evaluation.worker.audit import profiled
from kbopt.evaluation.worker.candidate import failure_of
from kbopt.evaluation.worker.profiled_call import ProfiledCall

GO, READY, JOB = "go", "ready", "job.json"
"""Files in the scratch folder. The process under ncu makes `READY` when it waits, goes on once there is `GO`,
and finds its request in `JOB`."""
_NUM_TRACES = 3
"""Traced calls, of which the shortest counts: other work on the machine, and pages that the profiler itself
loads in the first one, only add to a time."""
_FEW_PAGES = 16
"""Pages that a traced call on a CPU may be the first to touch: 0.03 ms at 2 us each, as measured on a virtual
machine. An output of 4 MiB has 1024, and a timed call finds them in memory that earlier calls freed."""
_TRACING_S = 2.0
"""Seconds in which further calls are traced until `_NUM_TRACES` found their memory in place. A softmax of
4 MiB needed ten calls. A model that allocates more than 32 MiB at once touches new pages in every call."""
_MOST_TEXT_BYTES = 64 * 2**20
"""Bytes of a tool's output that are read."""
_MOST_FILES = 8
"""Files of a build that are disassembled; cubins come first."""
_LOOK_S = 0.05
"""Seconds between two looks for a file."""
_READY_S = 90.0
"""Seconds for a process under ncu to import torch and load its sources."""
_NCU_S = 30.0
"""Seconds for ncu to count: it repeats each launch about ten times."""
_NICENESS = 10
"""Niceness (nice(2)) of disassembling: whoever is timed comes first."""
_NCU = ("/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")
"""Where CUDA's toolkit and NVIDIA's packages install ncu, if it is not in PATH."""


def dissect(channel: Channel) -> None:
    """Answer `Dissect` with the kernels in the machine code of a build."""
    job: Dissect = channel.receive(Dissect)
    os.nice(_NICENESS)
    channel.send(_code(Path(job.folder), on_cuda=job.on_cuda))


def _code(folder: Path, *, on_cuda: bool) -> Code | Missing:
    tool = disassembler() if on_cuda else shutil.which("objdump")
    if tool is None:
        name, package = ("cuobjdump", "CUDA's toolkit or Triton") if on_cuda else ("objdump", "binutils")
        return Missing(reason=f"there is no {name}; {package} brings it")
    # Triton leaves launchers for the host beside its cubins.
    libraries = sorted(filter(_is_elf, folder.rglob("*")), key=lambda path: (path.suffix != ".cubin", path))
    libraries = libraries[:_MOST_FILES]
    if not libraries:
        return Missing(reason="the source built no machine code of its own")
    found = [kernel for path in libraries for kernel in _kernels(tool, path, on_cuda=on_cuda)]
    if not found:
        what = "no kernel for a GPU" if on_cuda else "no function with arithmetic of floating point"
        return Missing(reason=f"there is {what} in {', '.join(path.name for path in libraries)}")
    return Code(kernels=tuple(found))


def _kernels(tool: str, path: Path, *, on_cuda: bool) -> tuple[KernelCode, ...]:
    if on_cuda:
        return gpu_code.kernels(
            _printed([tool, "--dump-resource-usage", str(path)]), _printed([tool, "-sass", str(path)])
        )
    return cpu_code.kernels(_printed([tool, "-d", "-C", "--no-show-raw-insn", str(path)]))


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.suffix == ".o":
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _printed(command: list[str]) -> str:
    return printed(command)[:_MOST_TEXT_BYTES].decode(errors="replace")


def trace(channel: Channel) -> None:
    """Answer `CallBoth` with what a call spends its time in. It waits for the go-ahead before the call."""
    job: CallBoth = channel.receive(CallBoth)
    try:
        call = ProfiledCall(job)
        if call.device.type == "cuda":
            # The context and CUPTI take a second to start. The device's lease is not needed for that.
            _saved(lambda: torch.ones(8, device=call.device).add_(1), on_cuda=True)
        channel.send(NeedsDevice())
        channel.receive(Go)
        call.prepare()
        answer: Trace | Raised | SourceRefused = min(_traces(call), key=lambda found: found.busy_us)
    except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
        answer = failure_of(error)
    channel.send(answer)


def _traces(call: ProfiledCall) -> list[Trace]:
    """Return traces of calls that found their memory in place, or of all calls if none did."""
    on_cuda, until = call.device.type == "cuda", time.monotonic() + _TRACING_S
    warm: list[Trace] = []
    fresh: list[Trace] = []
    while len(warm) < _NUM_TRACES:
        if len(warm) + len(fresh) >= _NUM_TRACES and time.monotonic() > until:
            break
        found = _traced(call)
        (warm if on_cuda or call.fresh_pages < _FEW_PAGES else fresh).append(found)
    return warm or fresh


def _traced(call: ProfiledCall) -> Trace:
    on_cuda = call.device.type == "cuda"
    call.flush()
    return trace_events.traced(_saved(call.run, on_cuda=on_cuda), on_cuda=on_cuda)


def _saved(run: Callable[[], object], *, on_cuda: bool) -> str:
    """Return the trace of `run` in the JSON that torch's profiler saves."""
    activity = torch.profiler.ProfilerActivity
    activities = {activity.CPU, activity.CUDA} if on_cuda else {activity.CPU}
    with profiled(activities) as results, _RecordFunctionFast(trace_events.CALL):
        run()
    file = Path("trace.json").absolute()
    results[0].save(str(file))
    text = file.read_text(errors="replace")
    file.unlink()
    return text


def count(channel: Channel) -> None:
    """Answer `CallBoth` with Nsight Compute's counters of a call, or the reason why there are none."""
    job: CallBoth = channel.receive(CallBoth)
    ncu = _nsight_compute()
    if ncu is None:
        channel.send(Missing(reason="there is no Nsight Compute (ncu) on this machine"))
        return
    Path(JOB).write_text(codec.dumps(job))
    environ = {**os.environ, "PYTHONPATH": str(Path(kbopt.__file__).resolve().parents[1])}
    target = [sys.executable, "-P", "-m", "kbopt.evaluation.worker.profile_target"]
    with Path("ncu.txt").open("w+b") as output:
        process = subprocess.Popen(
            ncu_report.command(ncu, target), stdout=output, stderr=subprocess.STDOUT, env=environ
        )
        is_there = _awaited(process, Path(READY), _READY_S)
        if is_there:
            channel.send(NeedsDevice())
            channel.receive(Go)
            Path(GO).touch()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_NCU_S)
        process.kill()
        process.wait()
        output.seek(0)
        text = output.read(_MOST_TEXT_BYTES).decode(errors="replace")
    channel.send(ncu_report.counters(text))


def _awaited(process: subprocess.Popen[bytes], file: Path, limit_s: float) -> bool:
    """Return whether the file appeared before the process ended and within the limit."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until and process.poll() is None:
        if file.exists():
            return True
        time.sleep(_LOOK_S)
    return False


def _nsight_compute() -> str | None:
    if found := shutil.which("ncu"):
        return found
    installed = [path for pattern in _NCU for path in Path("/").glob(pattern.removeprefix("/"))]
    return str(max(installed)) if installed else None
