"""The process inside the sandbox: loads the candidate, and calls it when the judge asks.

The judge believes nothing that leaves this process. The process does not know the expected answers or the
seeds of the inputs. Checks, single timed calls and probes are the same request, so it cannot tell which of
these are checked or timed, nor how many follow. The judge has its own clock and reads the outputs' memory
itself. What this process says has to agree with that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from kbopt.core import codec
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation import numerics
from kbopt.evaluation.messages import CallBoth, Done, Go, NeedsDevice, Warm
from kbopt.evaluation.numerics import constructed
from kbopt.evaluation.passes import Gradients, call_of
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.timing.cuda_timer import CudaTimer
from kbopt.evaluation.transport.channel import SPIN_S, Channel
from kbopt.evaluation.transport.input_buffer import attach
from kbopt.evaluation.transport.layout import TensorSpec, flatten, unflatten, view
from kbopt.evaluation.worker.audit import audited, kernel_times
from kbopt.evaluation.worker.build_process import find_builds
from kbopt.evaluation.worker.candidate import failure_of, load_candidate
from kbopt.evaluation.worker.held_outputs import HeldOutputs
from kbopt.evaluation.worker.weights import take_over
from kbopt.evaluation.worker_messages import (
    Batch,
    BatchDone,
    Call,
    Called,
    CallOutput,
    CountFailures,
    FailedAllocations,
    Free,
    FromWorker,
    Instantiate,
    Instantiated,
    Kernels,
    Load,
    Open,
    Opened,
    Place,
    Reply,
    Request,
    request_in,
)

_MOST_KERNELS = 20
"""Kernels of a call that are reported: the judge's note names fewer."""
_EMPTY = Place(address=0, spec=TensorSpec(dtype="float32", shape=(), stride=()), device="cpu")
_ECHO = codec.packed(Called(outputs=(CallOutput(skeleton={"tensor": 0}, places=(_EMPTY,)),)))
"""The content of the answer to `echo` on a CPU, as quick as a source could give it with a loop of its own.
Else such a source would gain what this process takes to do more, 0.06 ms."""


class _Session:
    """One model, the memory of its inputs on each workload, and the outputs that are still held."""

    def __init__(self, opening: Open, channel: Channel, *, warm: bool) -> None:
        self._warm = warm
        self._say = channel.send
        torch.set_num_threads(opening.threads)
        linux.keep_freed_memory()
        linux.shift_heap()
        self._device = torch.device(opening.device)
        fds, ticket = channel.take_fds(), opening.input_buffer
        self._cuda = CudaTimer(fds, ticket, self._device) if self._device.type == "cuda" else None
        self._input_buffer = attach(fds) if self._cuda is None else self._cuda.buffer
        channel.spin_s = SPIN_S if self._cuda is not None else 0.0
        self._skeletons = opening.skeletons
        self._specs = opening.specs
        self._model: Any = _copy_first
        self._gradients: tuple[Gradients | None, ...] = (None,) * len(self._specs)
        self._module: Any = None
        self._protocol = EvalProtocol()
        self._keeps_state = False
        self._copies: list[Any] = []
        self._outputs = HeldOutputs(self._cuda)
        self._ready: dict[tuple[int, ...], Any] = {}

    @property
    def base(self) -> int:
        return self._input_buffer.data_ptr()

    def answer(self, request: Request) -> FromWorker:
        """Carry a request out. May raise what a candidate raises."""
        match request.content:
            case Call(operation="run") as call:
                return self._run(call)
            case Call(operation="audit") as call:
                return self._audit(call)
            case Call(operation="latency") as call:
                return self._latency(call)
            case Call(operation="profile") as call:
                return self._profile(call)
            case Free() as free:
                return self._free(free)
            case Batch() as batch:
                return self._batch(batch, request.id)
            case Load() as load:
                return self._load(load)
            case Instantiate() as instantiate:
                return self._instantiate(instantiate)
            case CountFailures():
                return FailedAllocations(count=torch.cuda.memory_stats(self._device).get("num_ooms", 0))
        raise ValueError(f"no worker answers {request.content}")

    def _load(self, load: Load) -> Done:
        """Load the source, which may run any code. The judge's budget of time limits it."""
        numerics.apply(load.protocol.arithmetic)
        if self._cuda is not None:
            torch.cuda.empty_cache()  # The stand-in's copies of the inputs may be of many GiB.
        if not self._warm:
            find_builds(load.setup)
        self._protocol = load.protocol
        self._module = load_candidate(load.source)
        return Done()

    def _instantiate(self, given: Instantiate) -> Instantiated:
        """Construct `ModelNew` under the seed of the reference's weights. Copy these into it if they fit."""
        tensors = [
            view(self._input_buffer, spec, offset).clone()
            for spec, offset in zip(given.specs, given.offsets, strict=True)
        ]
        values = unflatten(given.init_skeleton, tensors[: given.num_init])
        seed, keeps = given.weight_seed, given.keeps_dtypes
        model = constructed(self._module.ModelNew, values, seed, self._protocol, self._device, keeps=keeps)
        self._model = model
        self._gradients = given.gradients
        self._keeps_state = given.keeps_state
        if not isinstance(model, torch.nn.Module):
            return Instantiated(takes_weights=False, overwrites=False, misfits="")
        return take_over(model, dict(zip(given.names, tensors[given.num_init :], strict=True)))

    def _ready_call(self, request: Call | Batch, offsets: tuple[int, ...]) -> Callable[[], Any]:
        """Return a call of the model on the inputs at `offsets`, ready to be timed."""
        model = self._copy() if self._keeps_state else self._model
        arguments = self._arguments(request.workload, offsets)
        return call_of(model, self._gradients[request.workload], arguments)

    def _copy(self) -> Any:
        """Return a fresh copy of the model: the one that `free` made, because the judge times `run`."""
        return self._copies.pop() if self._copies else copy.deepcopy(self._model)

    def _run(self, request: Call) -> Called:
        """Call the model once per entry of `offsets`."""
        calls = [self._outputs.copying(self._ready_call(request, offsets)) for offsets in request.offsets]
        with torch.no_grad():
            if self._cuda is None:
                return Called(outputs=self._outputs.hold([call() for call in calls]))
            outputs, nanoseconds, queued_ns = self._cuda.timed(calls, request.hold_ms)
        held = self._outputs.hold_copied(outputs)
        return Called(outputs=held, ns=tuple(nanoseconds), queued_ns=queued_ns)

    def _batch(self, request: Batch, number: int) -> BatchDone:
        """Queue calls of the model, or of its stand-in, behind a gate. Reply twice, as `Batch` says."""
        if self._cuda is None:
            raise ValueError("a batch waits on a GPU")

        def queued(outputs: list[Any]) -> None:
            self._say(Reply(id=number, content=Called(outputs=self._outputs.hold(outputs))))

        calls: list[Callable[[], Any]]
        if request.operation == "rehearse":
            stand_in = partial(_copy_for, self._device, request.output_bytes)
            batch = [self._arguments(request.workload, offsets) for offsets in request.offsets]
            calls = [partial(stand_in, *arguments) for arguments in batch]
        else:
            calls = [self._outputs.copying(self._ready_call(request, at)) for at in request.offsets]
        with torch.no_grad():
            return BatchDone(ns=tuple(self._cuda.batch(request.gate, calls, queued, marked=request.marked)))

    def _latency(self, request: Call) -> Called:
        """Call the model once on a GPU. Reply the nanoseconds until it is done, which its caller waits."""
        if self._cuda is None:
            raise ValueError("on a CPU every caller waits")
        call = self._outputs.copying(self._ready_call(request, request.offsets[0]))
        with torch.no_grad():
            outputs, nanoseconds = self._cuda.waited_for(call)
        return Called(outputs=self._outputs.hold_copied(outputs), ns=tuple(nanoseconds))

    def _audit(self, request: Call) -> Called:
        """Call the model once under a dispatch mode. Reply what PyTorch ran, and whether anything else wrote
        memory.
        """
        call = self._ready_call(request, request.offsets[0])
        with torch.no_grad():
            output, seen = audited(call, self._was_given)
        if self._cuda is not None:
            torch.cuda.synchronize(self._device)
        held = self._outputs.hold_copied([output])
        return Called(outputs=held, ns=(0,), seen=replace(seen, copies_outputs=self._outputs.copies))

    def _was_given(self, tensor: torch.Tensor) -> bool:
        """Return whether the tensor lies in memory of the inputs or of the model's parameters and buffers."""
        storage = tensor.untyped_storage().data_ptr()
        if 0 <= storage - self.base < self._input_buffer.numel():
            return True
        model = self._model
        held = (*model.parameters(), *model.buffers()) if isinstance(model, torch.nn.Module) else ()
        return any(storage == one.untyped_storage().data_ptr() for one in held)

    def _profile(self, request: Call) -> Kernels:
        """Reply the kernels of one call on a GPU, see `audit.kernel_times`."""
        call = self._ready_call(request, request.offsets[0])
        with torch.no_grad():
            return Kernels(kernels=tuple(kernel_times(call)[:_MOST_KERNELS]))

    def _free(self, request: Free) -> Done:
        """Drop the outputs. Make ready what the next `run` needs, if its inputs will lie at `offsets`."""
        self._outputs.free()
        self._ready.clear()
        for offsets in request.offsets:
            self._ready[request.workload, *offsets] = self._arguments(request.workload, offsets)
        if self._keeps_state:
            self._copies = [copy.deepcopy(self._model)]
        if self._cuda is not None:
            self._cuda.forget()
        return Done()

    def _arguments(self, workload: int, offsets: tuple[int, ...]) -> Any:
        """Return the inputs at `offsets`. On a CPU `free` has made them, because the judge times `run`."""
        ready = self._ready.pop((workload, *offsets), None)
        if ready is not None:
            return ready
        places = zip(self._specs[workload], offsets, strict=True)
        return unflatten(self._skeletons[workload], [self._input(spec, at) for spec, at in places])

    def _input(self, spec: TensorSpec, at: int) -> torch.Tensor:
        """Return an input. On a CPU it has a storage of its own, as it has for any other caller: what shares,
        saves or copies its storage then takes no other input with it.
        """
        if self._cuda is not None or not spec.size_bytes:
            return view(self._input_buffer, spec, at)
        memory = memoryview(self._input_buffer.numpy())
        flat = torch.frombuffer(memory, dtype=spec.torch_dtype, count=spec.num_spanned, offset=at)
        return flat.as_strided(spec.shape, spec.stride)


def _copy_first(*arguments: Any) -> Any:
    """Stand in for the candidate while the judge measures what requests cost besides the call itself."""
    _, tensors = flatten(list(arguments))
    return tensors[0].clone() if tensors else None


def _copy_for(device: torch.device, output_bytes: Sequence[int], *arguments: Any) -> list[Any]:
    """Copy the first tensor, and return memory of `output_bytes` for the outputs of a model."""
    _copy_first(*arguments)
    return [torch.empty(size, dtype=torch.uint8, device=device) for size in output_bytes]


def measure(channel: Channel) -> None:
    """Serve the judge until it hangs up."""
    first, warm = _warmed_up(channel, Request)
    session = _Session(first.content, channel, warm=warm)
    channel.send(Reply(id=first.id, content=Opened(base=session.base)))
    while True:
        raw: Any = channel.receive_json()
        if raw["content"].get("operation") == "echo":
            channel.send_encoded(b'{"id":%d,"content":%s}' % (raw["id"], _ECHO))
            continue
        request = request_in(raw)
        try:
            content = session.answer(request)
        except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
            content = failure_of(error)
        channel.send(Reply(id=request.id, content=content))


def _warmed_up(channel: Channel, kind: Any) -> tuple[Any, bool]:
    """Return the first message, a `kind`, and whether `Warm` came before it.

    `Warm` has the process load libraries before it needs the device's lease.
    """
    message = channel.receive(Warm | kind)
    if not isinstance(message, Warm):
        return message, False
    find_builds(message.setup)
    square = torch.ones(8, 8, device=message.device)
    torch.allclose(square @ square, square)  # The libraries load their parts at their first use.
    if message.triton:
        _load_triton()
    channel.send(Done())
    return channel.receive(kind), True


def _load_triton() -> None:
    """Have Triton do what it does at its first launch: load its driver, and ask ptxas for its version."""
    with suppress(Exception):  # If Triton does not work, the candidate gets the exception when it uses it.
        from triton.compiler.compiler import make_backend
        from triton.runtime import driver

        make_backend(driver.active.get_current_target()).hash()


def kernelbench(channel: Channel) -> None:
    """Run KernelBench's own protocol, with reference and candidate in one process as there.

    The process asks for the device when it needs it, and has it until it answers.
    """
    from kbopt.evaluation.kernelbench.protocol import judge

    job, warm = _warmed_up(channel, CallBoth)
    if not warm:
        find_builds(job.setup)
    linux.keep_freed_memory()  # Else the model that is timed first would pay for pages that both use.

    def await_device() -> None:
        channel.send(NeedsDevice())
        channel.receive(Go)

    channel.send(judge(job, await_device))
