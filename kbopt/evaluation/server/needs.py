"""What judging takes of the host's memory: measured constants, and what follows from a task's data."""

from __future__ import annotations

from dataclasses import dataclass

from kbopt.evaluation.sandbox.memory import GIB
from kbopt.evaluation.server.budget import Need

CPU_PROCESS_BYTES = int(0.15 * GIB)
"""What a fork has for itself without any tensors: 25 MiB at first, more once its libraries have warmed up.
Its resident 0.2 to 0.3 GiB are for the most part the fork server's."""
CUDA_PROCESS_BYTES = int(1.2 * GIB)
"""A process with a CUDA context, whose libraries are paged in once for each. Measured on an H200."""
NVCC_BYTES = 3 * GIB
"""nvcc on torch's full headers peaks near 1.6 GB, cicc and cc1plus in turn, and g++ beside it near 1.2 GB."""
GXX_BYTES = int(1.5 * GIB)
"""g++ on torch's full headers peaks near 1.2 GB."""
PLAIN_BUILD_BYTES = GIB // 2
"""A source that only has to be imported."""
UNKNOWN_DATA_BYTES = GIB // 8
"""What a task's data are taken to need until its judge has drawn them."""
_INPUT_BUFFER_BYTES = GIB // 2
"""Shared inputs are as many sets as fit into this, and one at the least."""
_MOST_SETS = 6
_COMPILES = ("load_inline", "cpp_extension", "torch.compile", "nvcc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The bytes of one set of a task's inputs, of its outputs and its parameters, in the task's precision.

    `peak_bytes` is the most that its judge was seen to hold, activations of the reference included.
    """

    inputs_bytes: int = 0
    outputs_bytes: int = 0
    parameters_bytes: int = 0
    peak_bytes: int = 0

    @property
    def input_buffer_bytes(self) -> int:
        """Inputs that a judge shares with a child."""
        sets = max(1, min(_MOST_SETS, _INPUT_BUFFER_BYTES // max(1, self.inputs_bytes, self.outputs_bytes)))
        return max(sets * self.inputs_bytes, self.parameters_bytes)

    @property
    def held_bytes(self) -> int:
        """By an idle judge and its reference's worker: inputs that both see, three copies of the
        parameters (its own, in float64 twice as large) and the child's.
        """
        return self.input_buffer_bytes + 4 * self.parameters_bytes

    @property
    def judging_bytes(self) -> int:
        """By the judge of a candidate, beyond that: draws and a copy that the reference may write to, its own
        answer, inputs, outputs and parameters in float64, two steps on the way to the latter.
        """
        computed = (2 + 2) * self.inputs_bytes + (1 + 2 + 3 * 2) * self.outputs_bytes
        return max(computed, self.peak_bytes - self.held_bytes - CPU_PROCESS_BYTES)

    @property
    def beside_child_bytes(self) -> int:
        """By the judge while a candidate's child computes: the draw, and its own and the float64 answer."""
        return self.inputs_bytes + 3 * self.outputs_bytes

    @property
    def child_bytes(self) -> int:
        """By a candidate's child while it computes: its answer, and two steps on the way to it."""
        return 3 * self.outputs_bytes

    @property
    def own_bytes(self) -> int:
        """By judge and candidate beyond what the judge holds when idle. They compute in turns."""
        idle_child = self.input_buffer_bytes + 2 * self.parameters_bytes
        return idle_child + max(self.judging_bytes, self.beside_child_bytes + self.child_bytes)

    @property
    def kernelbench_bytes(self) -> int:
        """By KernelBench's protocol: inputs drawn and cast, two models, their answers, the difference."""
        return 3 * self.inputs_bytes + 3 * self.parameters_bytes + 5 * self.outputs_bytes


def need_of(source: str, data: Data | None, *, on_cuda: bool, compiles: bool, kernelbench: bool) -> Need:
    """What judging `source` takes at once: its build, then its child beside the judge, then KernelBench's
    where that is asked for. `compiles` where baselines are.

    `data` is None for a task that was never seen. On a GPU the task's data lie there.
    """
    process = CUDA_PROCESS_BYTES if on_cuda else CPU_PROCESS_BYTES
    compiles = compiles or any(word in source for word in _COMPILES)
    build = (NVCC_BYTES if on_cuda else GXX_BYTES) if compiles else PLAIN_BUILD_BYTES
    if on_cuda:
        return Need(own=max(build, process), judge=2 * process)
    replica = process + (data.kernelbench_bytes if data else UNKNOWN_DATA_BYTES) if kernelbench else 0
    judging = process + (data.own_bytes if data else UNKNOWN_DATA_BYTES)
    held = data.held_bytes if data else UNKNOWN_DATA_BYTES
    return Need(own=max(build, judging, replica), judge=2 * process + held)
