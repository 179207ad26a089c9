"""Estimates of the host memory that judging takes, from measured constants and the size of a task's data."""

from __future__ import annotations

from kbopt.evaluation.messages import Sizes
from kbopt.evaluation.sandbox.init_process import INPUT_BUFFER_BYTES
from kbopt.evaluation.sandbox.memory import GIB
from kbopt.evaluation.server.budget import Need

CPU_PROCESS_BYTES = int(0.15 * GIB)
"""Private bytes of a forked process without tensors: 25 MiB at first, and more once its libraries have warmed
up. Most of its resident 0.2 to 0.3 GiB is shared with the fork server."""
CUDA_PROCESS_BYTES = int(1.2 * GIB)
"""Host memory in bytes of a process with a CUDA context, whose libraries are not shared. Measured on an
H200."""
NVCC_BYTES = 3 * GIB
"""Bytes of a build by nvcc. On torch's full headers nvcc peaks near 1.6 GB (cicc, then cc1plus), and g++
beside it near 1.2 GB."""
GXX_BYTES = int(1.5 * GIB)
"""Bytes of a build by g++, which peaks near 1.2 GB on torch's full headers."""
PLAIN_BUILD_BYTES = GIB // 2
"""Bytes of a build that only imports the source."""
UNKNOWN_DATA_BYTES = GIB // 8
"""Bytes that are assumed for a task's data until its judge has drawn inputs."""
_MOST_SETS = 4
"""Sets of inputs in the shared buffer on a CPU at most: the calls of `judge.cpu_worker`'s longest block."""
_COMPILES = ("load_inline", "cpp_extension", "torch.compile", "nvcc")
"""Words in a source that compiles something."""


def _input_buffer_bytes(task: Sizes) -> int:
    """Return the size in bytes of the input buffer that the judge shares with a worker."""
    sets = max(1, min(_MOST_SETS, INPUT_BUFFER_BYTES // max(1, task.inputs_bytes, task.outputs_bytes)))
    return max(sets * task.inputs_bytes, task.parameters_bytes)


def _held_bytes(task: Sizes) -> int:
    """Return the bytes that an idle judge and its reference's worker hold.

    These are the shared inputs and four times the parameters: the judge's own, its float64 copy of twice the
    size, and the worker's.
    """
    return _input_buffer_bytes(task) + 4 * task.parameters_bytes


def _judging_bytes(task: Sizes) -> int:
    """Return the bytes that the judge holds beyond `_held_bytes` while it computes.

    These are the inputs and a copy that the reference may write to, its answer, inputs and outputs in
    float64, and two intermediate results of each run. If the peak showed more, that counts.
    """
    computed = (2 + 2) * task.inputs_bytes + (1 + 2 + 3 * 2) * task.outputs_bytes
    return max(computed, task.peak_bytes - _held_bytes(task) - CPU_PROCESS_BYTES)


def _own_bytes(task: Sizes) -> int:
    """Return the bytes that judge and candidate hold together beyond `_held_bytes`. They compute in turns."""
    beside_candidate = task.inputs_bytes + 3 * task.outputs_bytes  # Own answer and that in float64.
    computing_candidate = 3 * task.outputs_bytes  # Its answer and two intermediate results.
    idle_candidate = _input_buffer_bytes(task) + 2 * task.parameters_bytes
    return idle_candidate + max(_judging_bytes(task), beside_candidate + computing_candidate)


def _kernelbench_bytes(task: Sizes) -> int:
    """Return the bytes that KernelBench's protocol holds: inputs drawn and cast, two models, answers and
    their difference.
    """
    return 3 * task.inputs_bytes + 3 * task.parameters_bytes + 5 * task.outputs_bytes


def need_of(source: str, task: Sizes | None, *, on_cuda: bool, compiles: bool, kernelbench: bool) -> Need:
    """Estimate the host memory of judging `source`: the largest of its stages, which follow one another.

    The stages are the build, the child beside the judge, and KernelBench's protocol if asked for. `compiles`
    says that something is compiled besides the source, such as baselines. `task` is None for a task never
    seen. On a GPU the task's data lie in the device's memory and do not count.
    """
    process = CUDA_PROCESS_BYTES if on_cuda else CPU_PROCESS_BYTES
    compiles = compiles or any(word in source for word in _COMPILES)
    build = (NVCC_BYTES if on_cuda else GXX_BYTES) if compiles else PLAIN_BUILD_BYTES
    if on_cuda:
        return Need(own=max(build, process), judge=2 * process)
    replica = process + (_kernelbench_bytes(task) if task else UNKNOWN_DATA_BYTES) if kernelbench else 0
    judging = process + (_own_bytes(task) if task else UNKNOWN_DATA_BYTES)
    held = _held_bytes(task) if task else UNKNOWN_DATA_BYTES
    return Need(own=max(build, judging, replica), judge=2 * process + held)
