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
from functools import partial
from typing import Any

import torch

from kbopt.core import codec
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation import numerics
from kbopt.evaluation.messages import CallBoth, Warm
from kbopt.evaluation.numerics import constructed
from kbopt.evaluation.passes import Gradients, call_of
from kbopt.evaluation.sandbox import linux
from kbopt.evaluation.timing.cuda_timer import CudaTimer
from kbopt.evaluation.transport.channel import SPIN_S, Channel, Message
from kbopt.evaluation.transport.input_buffer import attach
from kbopt.evaluation.transport.layout import LayoutError, TensorSpec, dtype_name, flatten, unflatten, view
from kbopt.evaluation.worker.audit import audited, kernel_times
from kbopt.evaluation.worker.build_process import find_builds
from kbopt.evaluation.worker.candidate import CandidateError, describe_exception, load_candidate
from kbopt.evaluation.worker.weights import take_over

_MOST_KERNELS = 20
"""Kernels of a call that are reported: the judge's note names fewer."""
_ECHO = b'{"id":%d,"outputs":[{"skeleton":{"tensor":0},"tensors":[[0,["float32",[],[]],"cpu","",0]]}]}'
"""The answer to an empty request on a CPU, as quick as a source could give it with a loop of its own. Else
such a source would gain what this process takes to do more, 0.06 ms."""


class _Session:
    """One model, the memory of its inputs on each workload, and the outputs that are still held.

    Each public method answers the request of its name. A request has the fields that `judge.worker` sends.
    """

    def __init__(self, request: Message, channel: Channel, *, warm: bool) -> None:
        self._warm = warm
        self._say = channel.send
        torch.set_num_threads(request["threads"])
        linux.keep_freed_memory()
        linux.shift_heap()
        self._device = torch.device(request["device"])
        fds, ticket = channel.take_fds(), request["input_buffer"]
        self._cuda = CudaTimer(fds, ticket, self._device) if self._device.type == "cuda" else None
        self._input_buffer = attach(fds) if self._cuda is None else self._cuda.buffer
        channel.spin_s = SPIN_S if self._cuda is not None else 0.0
        self._skeletons = request["skeletons"]
        self._specs = [[TensorSpec.from_json(raw) for raw in specs] for specs in request["specs"]]
        self._model: Any = _copy_first
        self._gradients: tuple[Gradients | None, ...] = (None,) * len(self._specs)
        self._module: Any = None
        self._protocol = EvalProtocol()
        self._keeps_state = False
        self._copies: list[Any] = []
        self._outputs: list[Any] = []
        self._ready: dict[tuple[int, ...], Any] = {}

    @property
    def base(self) -> int:
        return self._input_buffer.data_ptr()

    def load(self, request: Message) -> Message:
        """Load the source, which may run any code. The judge's budget of time limits it."""
        protocol = codec.decode(EvalProtocol, request["protocol"])
        numerics.apply(protocol.arithmetic)
        if self._cuda is not None:
            torch.cuda.empty_cache()  # The stand-in's copies of the inputs may be of many GiB.
        if not self._warm:
            find_builds(request["setup"])
        self._protocol = protocol
        self._module = load_candidate(request["source"])
        return {"loaded": True}

    def construct(self, request: Message) -> Message:
        """Construct `ModelNew` under the seed of the reference's weights. Copy these into it if they fit."""
        specs = [TensorSpec.from_json(raw) for raw in request["specs"]]
        tensors = [
            view(self._input_buffer, spec, offset).clone()
            for spec, offset in zip(specs, request["offsets"], strict=True)
        ]
        num_init = request["num_init"]
        values = unflatten(request["init_skeleton"], tensors[:num_init])
        seed, keeps = request["weight_seed"], request["keeps_dtypes"]
        model = constructed(self._module.ModelNew, values, seed, self._protocol, self._device, keeps=keeps)
        taken, misfits = False, ""
        if isinstance(model, torch.nn.Module):
            taken, misfits = take_over(model, dict(zip(request["names"], tensors[num_init:], strict=True)))
        self._model = model
        self._gradients = codec.decode(tuple[Gradients | None, ...], request["gradients"])
        self._keeps_state = request["keeps_state"]
        return {"taken": taken, "misfits": misfits}

    def run(self, request: Message) -> Message:
        """Call the model once per entry of `offsets`. Reply the outputs' places; on a GPU also the
        nanoseconds of each call.
        """
        return self._run(request, [self._call(request, offsets) for offsets in request["offsets"]])

    def rehearse(self, request: Message) -> Message:
        """Do the same on a GPU with stand-ins for the model's calls: plain copies, and outputs of
        `output_bytes`.
        """
        stand_in = partial(_copy_for, self._device, request["output_bytes"])
        batch = [self._arguments(request, offsets) for offsets in request["offsets"]]
        return self._run(request, [partial(stand_in, *arguments) for arguments in batch])

    def _call(self, request: Message, offsets: list[int]) -> Callable[[], Any]:
        """Return a call of the model on the inputs at `offsets`, ready to be timed."""
        model = self._copy() if self._keeps_state else self._model
        return call_of(model, self._gradients[request["workload"]], self._arguments(request, offsets))

    def _copy(self) -> Any:
        """Return a fresh copy of the model: the one that `free` made, because the judge times `run`."""
        return self._copies.pop() if self._copies else copy.deepcopy(self._model)

    def _run(self, request: Message, calls: Sequence[Callable[[], Any]]) -> Message:
        if self._cuda is not None and "gate" in request:
            return self._run_gated(self._cuda, request, calls)
        with torch.no_grad():
            if self._cuda is None:
                return {"outputs": self._held([call() for call in calls])}
            outputs, nanoseconds, queued_ns = self._cuda.timed(calls, request["hold_ms"])
        return {"ns": nanoseconds, "queued_ns": queued_ns, "outputs": self._held(outputs)}

    def _run_gated(self, device: CudaTimer, request: Message, calls: Sequence[Callable[[], Any]]) -> Message:
        """Run the calls as a batch, which waits for the gate to open. The answer has two messages.

        The first says where the outputs will lie, once all calls are queued. The second has the calls' times
        if the request is `marked`.
        """

        def queued(outputs: list[Any]) -> None:
            self._say({"id": request["id"], "outputs": self._held(outputs)})

        with torch.no_grad():
            return {"ns": device.batch(request["gate"], calls, queued, marked=request["marked"])}

    def latency(self, request: Message) -> Message:
        """Call the model once on a GPU. Reply the nanoseconds until it is done, which its caller waits."""
        if self._cuda is None:
            raise ValueError("on a CPU every caller waits")
        call = self._call(request, request["offsets"][0])
        with torch.no_grad():
            outputs, nanoseconds = self._cuda.waited_for(call)
        return {"ns": nanoseconds, "outputs": self._held(outputs)}

    def audit(self, request: Message) -> Message:
        """Call the model once under a dispatch mode. Reply what PyTorch ran, and whether anything else wrote
        memory.
        """
        call = self._call(request, request["offsets"][0])
        with torch.no_grad():
            output, seen = audited(call, self._was_given)
        self._outputs.append(output)
        if self._cuda is not None:
            torch.cuda.synchronize(self._device)
        return {"ns": [0], "outputs": [self._describe(output)], "audit": codec.encode(seen)}

    def _was_given(self, tensor: torch.Tensor) -> bool:
        """Return whether the tensor lies in memory of the inputs or of the model's parameters and buffers."""
        storage = tensor.untyped_storage().data_ptr()
        if 0 <= storage - self.base < self._input_buffer.numel():
            return True
        model = self._model
        held = (*model.parameters(), *model.buffers()) if isinstance(model, torch.nn.Module) else ()
        return any(storage == one.untyped_storage().data_ptr() for one in held)

    def profile(self, request: Message) -> Message:
        """Reply the kernels of one call on a GPU, see `audit.kernel_times`."""
        call = self._call(request, request["offsets"][0])
        with torch.no_grad():
            kernels = kernel_times(call)
        return {"kernels": codec.encode(kernels[:_MOST_KERNELS])}

    def memory(self, request: Message) -> Message:
        """Reply how often torch's allocator found no room on a GPU. Its caller may have passed over it."""
        return {"failed_allocations": torch.cuda.memory_stats(self._device).get("num_ooms", 0)}

    def free(self, request: Message) -> Message:
        """Drop the outputs. Make ready what the next `run` needs, if its inputs will lie at `offsets`."""
        self._outputs.clear()
        self._ready.clear()
        for offsets in request.get("offsets", ()):
            self._ready[request["workload"], *offsets] = self._arguments(request, offsets)
        if self._keeps_state:
            self._copies = [copy.deepcopy(self._model)]
        if self._cuda is not None:
            self._cuda.forget()
            if request.get("moves"):
                torch.cuda.empty_cache()
        return {"freed": True}

    def _held(self, outputs: list[Any]) -> list[Message]:
        """Hold the outputs until `free`, and describe each."""
        self._outputs += outputs
        return [self._describe(output) for output in outputs]

    def _describe(self, output: Any) -> Message:
        try:
            skeleton, tensors = flatten(output)
        except LayoutError as error:
            return {"unusable": str(error)}
        places = []
        for tensor in tensors:
            address = tensor.data_ptr()
            on_device = self._cuda is not None and tensor.is_cuda
            segment, offset = self._cuda.locate(address) if self._cuda and on_device else ("", 0)
            spec = [dtype_name(tensor.dtype), tensor.shape, tensor.stride()]
            places.append([address, spec, tensor.device.type, segment, offset])
        return {"skeleton": skeleton, "tensors": places}

    def _arguments(self, request: Message, offsets: list[int]) -> Any:
        """Return the inputs at `offsets`. On a CPU `free` has made them, because the judge times `run`."""
        workload = request["workload"]
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
    request, warm = _warmed_up(channel)
    session = _Session(request, channel, warm=warm)
    channel.send({"id": request["id"], "base": session.base})
    while True:
        request = channel.receive()
        if request["op"] == "echo":
            channel.send_encoded(_ECHO % request["id"])
            continue
        try:
            reply = getattr(session, request["op"])(request)
        except CandidateError as error:
            reply = {"rejected_source": str(error)}
        except BaseException as error:  # noqa: BLE001 - the sandbox's edge: the candidate may raise anything
            reply = {"raised": describe_exception(error)}
        channel.send({"id": request["id"], **reply})


def _warmed_up(channel: Channel) -> tuple[Message, bool]:
    """Return the first message that is not `Warm`, and whether `Warm` came before it.

    `Warm` has the process load libraries before it needs the device's lease.
    """
    request = channel.receive()
    if request.get("type") != Warm.__name__:
        return request, False
    warm: Warm = codec.decode(Warm, request)
    find_builds(warm.setup)
    square = torch.ones(8, 8, device=warm.device)
    torch.allclose(square @ square, square)  # The libraries load their parts at their first use.
    if warm.triton:
        _load_triton()
    channel.send({"warm": True})
    return channel.receive(), True


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

    request, warm = _warmed_up(channel)
    job: CallBoth = codec.decode(CallBoth, request)
    if not warm:
        find_builds(job.setup)
    linux.keep_freed_memory()  # Else the model that is timed first would pay for pages that both use.

    def await_device() -> None:
        channel.send({"ready": True})
        channel.receive()

    channel.send({"fields": codec.encode(judge(job, await_device))})
