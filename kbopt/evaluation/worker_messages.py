"""The messages between a judge and its workers. Each is defined here once, and `core.codec` decodes it.

The judge sends a `Request`, and the worker answers with a `Reply` of the same number. To a batch there are
two replies. Both ends use the same types, but the judge takes nothing from a reply that `judge.replies` has
not checked. Descriptions of outputs are named tuples, because a CPU's clock runs while a worker writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from kbopt.core import codec
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.messages import Done, Raised, SourceRefused
from kbopt.evaluation.passes import Gradients
from kbopt.evaluation.transport.layout import Skeleton, TensorSpec

Operation = Literal["run", "audit", "latency", "profile", "echo"]
"""What a worker does in a call: `run` calls the model. `audit` does so under a dispatch mode and `profile`
under torch's profiler. `latency` waits for the device, and `echo` answers at once."""
Queued = Literal["run", "rehearse"]
"""What is queued in a batch: the model's calls, or stand-ins that copy their first input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Map the input buffer, by `input_buffer` or the descriptors that come along. Answered by `Opened`.

    `skeletons` and `specs` are those of a call's arguments on each workload.
    """

    threads: int
    device: str
    input_buffer: str
    skeletons: tuple[Skeleton, ...]
    specs: tuple[tuple[TensorSpec, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Load the source, whose builds are found by `setup`. Answered by `Done`."""

    source: str
    setup: str
    protocol: EvalProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Instantiate:
    """Construct `ModelNew` under a seed, and copy weights into it if they fit. Answered by `Instantiated`.

    The tensors at `offsets` are those of its arguments, `num_init` in number, and the weights of `names`.
    """

    weight_seed: int
    keeps_state: bool
    keeps_dtypes: bool
    gradients: tuple[Gradients | None, ...]
    init_skeleton: Skeleton
    num_init: int
    names: tuple[str, ...]
    specs: tuple[TensorSpec, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Make a call for each of `offsets`, at which its inputs lie. Answered by `Called` or `Kernels`.

    On a GPU other work holds the calls for `hold_ms` milliseconds until they are queued.
    """

    operation: Operation
    workload: int
    offsets: tuple[tuple[int, ...], ...]
    hold_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Queue calls behind a gate on a GPU. Answered by `Called` once they are queued, and `BatchDone` later.

    Stand-ins return memory of `output_bytes`. Without `marked` the times in `BatchDone` are zeros.
    """

    operation: Queued
    workload: int
    offsets: tuple[tuple[int, ...], ...]
    gate: int
    marked: bool
    output_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFailures:
    """Say how often torch's allocator found no room on a GPU. Answered by `FailedAllocations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Drop the outputs, and make ready a call whose inputs will lie at `offsets`. Answered by `Done`."""

    workload: int = 0
    offsets: tuple[tuple[int, ...], ...] = ()


ToWorker = Call | Free | Batch | Open | Load | Instantiate | CountFailures


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. Its number is drawn at random, so that an answer cannot come before it."""

    id: int
    content: ToWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """`base` is the address of the input buffer in the worker."""

    base: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instantiated:
    """Whether the model took the reference's weights, and whether its own had other values (`overwrites`). If
    only some fit, `misfits` says which did not.
    """

    takes_weights: bool
    overwrites: bool
    misfits: str


class Place(NamedTuple):
    """The place of a tensor. On a GPU it has a segment and the offset in it."""

    address: int
    spec: TensorSpec
    device: str
    segment: str = ""
    offset: int = 0

    @property
    def span(self) -> range:
        """The addresses of its bytes, from the first element to the last."""
        return range(self.address, self.address + self.spec.size_bytes)


class CallOutput(NamedTuple):
    """The output of one call: a skeleton with the places of tensors, or the name of an `unusable` type."""

    skeleton: Skeleton = None
    places: tuple[Place, ...] = ()
    unusable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a worker's audit saw of one call.

    `torch_ops` are the operations of PyTorch that compute, and `arithmetic` the products of PyTorch that were
    not in fp32. `custom_kernel` says that something else than PyTorch wrote memory, and `copies_outputs` that
    the model returned memory which CUDA does not share, so that a copy of it is a part of each call.
    """

    torch_ops: tuple[str, ...]
    arithmetic: tuple[str, ...]
    custom_kernel: bool
    copies_outputs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The outputs of the calls. On a GPU `ns` are the nanoseconds of each, and of queueing them all."""

    outputs: tuple[CallOutput, ...]
    ns: tuple[int, ...] = ()
    queued_ns: int = 0
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone:
    """The nanoseconds of each call of a batch."""

    ns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """One kernel of a call on a GPU: the number of its launches and their time in all, in microseconds."""

    name: str
    calls: int
    us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The kernels of a call, in the order of their time."""

    kernels: tuple[KernelTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAllocations:
    """How often torch's allocator found no room. Its caller may have passed over it."""

    count: int


FromWorker = (
    Called | Done | BatchDone | Opened | Instantiated | Kernels | FailedAllocations | Raised | SourceRefused
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to the request of that number."""

    id: int
    content: FromWorker


def request_in(raw: Any) -> Request:
    """Return the judge's request. A call is taken out by hand: on a CPU the clock runs meanwhile, and the
    codec, which checks what a worker need not, takes three times as long.
    """
    if raw["content"]["type"] != Call.__name__:
        request: Request = codec.decode(Request, raw)
        return request
    fields = {name: value for name, value in raw["content"].items() if name != "type"}
    fields["offsets"] = tuple(map(tuple, fields["offsets"]))
    return Request(id=raw["id"], content=Call(**fields))
