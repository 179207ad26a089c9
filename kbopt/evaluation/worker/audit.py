"""The audit: which PyTorch operations a candidate's call runs, and whether something else wrote its outputs.

It runs in the candidate's process, so the candidate can forge it. It serves `--torch-ops` and reports; it is
no proof.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Private functions, because `torch.profiler.profile` imports torch._dynamo, which takes seconds.
from torch._C._autograd import DeviceType, _disable_profiler, _enable_profiler, _prepare_profiler
from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig
from torch.utils._pytree import tree_leaves

from kbopt.evaluation.numerics import CONVOLUTIONS, PRODUCTS
from kbopt.evaluation.operations import EachOperation
from kbopt.evaluation.worker_messages import KernelTime, Seen

_FACTORIES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted")
_FILLS = ("zeros", "zeros_like", "new_zeros", "ones", "full", "full_like", "zero_", "fill_", "scalar_tensor")
_MOVES = (
    *("clone", "copy_", "_to_copy", "contiguous", "detach", "alias", "lift_fresh", "resize_", "set_"),
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided", "transpose", "t", "permute"),
    *("expand", "unsqueeze", "squeeze", "select", "slice", "split", "chunk", "unbind", "narrow", "unfold"),
    *("_local_scalar_dense", "item", "is_pinned", "_pin_memory", "record_stream", "numpy_T", "diagonal"),
    *("to", "resolve_conj", "resolve_neg", "flatten", "detach_", "result_type", "mT", "swapaxes", "movedim"),
)
_NOT_COMPUTING = frozenset((*_FACTORIES, *_FILLS, *_MOVES))
"""Names of ATen operations that allocate, fill, copy or view memory. All others count as computing."""
_COPIES = ("clone", "zeros", "zeros_like", "new_zeros", "full", "zero_", "fill_", "copy_", "_to_copy")
"""Names of ATen operations that fill or copy memory. What they leave there is compared after the call."""
_HALF_TYPES = frozenset((torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8))
"""Types of operands in which a product is of a lower precision than fp32."""


class _Watch(EachOperation):
    """Records operations that compute, and the storages that PyTorch allocated or wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.computing: dict[str, None] = {}
        self.arithmetic: dict[str, None] = {}
        self.custom_operators = False
        self.uninitialised: set[int] = set()
        self.made: set[int] = set()
        self.contents: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.foreign_writes = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        if name in PRODUCTS:
            self._note_arithmetic(name, _tensors((args, kwargs)))
        written = [t for value in _written(func, args, kwargs or {}) for t in _tensors(value)]
        if name not in _MOVES:
            self._check_reads(_tensors((args, kwargs)), written)
        result = func(*args, **(kwargs or {}))
        if namespace not in ("aten", "prims", "prim"):
            self.custom_operators = True
            self.uninitialised -= {_storage(t) for t in _tensors(result)}
        elif name in _FACTORIES:
            self.uninitialised |= {_storage(t) for t in _tensors(result)}
        else:
            if name not in _NOT_COMPUTING:
                self.computing[name] = None
            self._note_writes(written, args, result, name)
        return result

    def _note_arithmetic(self, name: str, operands: list[torch.Tensor]) -> None:
        """Note a product that does not compute in fp32, as `half: OPERATION` or `tf32: OPERATION`."""
        if low := next((t.dtype for t in operands if t.dtype in _HALF_TYPES), None):
            self.arithmetic[f"half: {name} on {str(low).removeprefix('torch.')}"] = None
        elif any(t.is_cuda and t.dtype == torch.float32 for t in operands):
            backend = torch.backends.cudnn if name in CONVOLUTIONS else torch.backends.cuda.matmul
            if backend.allow_tf32:
                self.arithmetic[f"tf32: {name}"] = None

    def _check_reads(self, tensors: list[torch.Tensor], written: list[torch.Tensor]) -> None:
        """Note if PyTorch reads memory that it never wrote: then something else wrote it."""
        if {_storage(t) for t in tensors} & self.uninitialised - {_storage(t) for t in written}:
            self.foreign_writes = True

    def _note_writes(self, written: list[torch.Tensor], args: Any, result: Any, name: str) -> None:
        own = [t for t in _tensors(result) if _storage(t) not in self.uninitialised]
        read = {_storage(t) for t in _tensors(args)}
        self.made.update(_storage(t) for t in own if _storage(t) not in read)
        self.made.update(map(_storage, written))
        for tensor in (*own, *written):
            self.uninitialised.discard(_storage(tensor))
            if name in _COPIES:
                self.contents[_storage(tensor)] = (tensor, tensor.clone())
            elif name not in _MOVES:
                self.contents.pop(_storage(tensor), None)


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Any]:
    """Yield the values of the arguments that the operation writes to, `out=` among them."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[number] if number < len(args) else kwargs.get(argument.name)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def audited(call: Callable[[], Any], given: Callable[[torch.Tensor], bool]) -> tuple[Any, Seen]:
    """Run the call. Return its result and the audit.

    `given` says of a tensor whether it lies in memory that the call was given: inputs and parameters.
    """
    watch = _Watch()
    with _every_thread() as elsewhere, watch:
        result = call()
    foreign = watch.foreign_writes or any(
        _storage(t) in watch.uninitialised or (_storage(t) not in watch.made and not given(t))
        for t in _tensors(result)
    )
    # If memory that PyTorch filled or copied holds something else now, a kernel wrote it.
    foreign = foreign or any(not torch.equal(now, then) for now, then in watch.contents.values())
    # Operations that only the profiler saw ran in another thread, or with dispatch modes off.
    unwatched = [] if watch.computing else [name for name in elsewhere if name not in _NOT_COMPUTING]
    return result, Seen(
        torch_ops=(*watch.computing, *unwatched)[:50],
        arithmetic=tuple(watch.arithmetic)[:20],
        custom_kernel=(foreign and not unwatched) or watch.custom_operators,
    )


@contextmanager
def _every_thread() -> Iterator[dict[str, None]]:
    """Yield a dict that holds, after the context, the names of ATen operations that any thread ran in it."""
    names: dict[str, None] = {}
    with profiled({torch.profiler.ProfilerActivity.CPU}, every_thread=True) as results:
        yield names
    for event in results[0].events():
        namespace, _, name = event.name().partition("::")
        if namespace == "aten":
            names[name] = None


@contextmanager
def profiled(activities: set[Any], *, every_thread: bool = False) -> Iterator[list[Any]]:
    """Yield a list that holds, after the context, the result of torch's profiler."""
    config = ProfilerConfig(
        *(ProfilerState.KINETO, False, False, False, False, False),
        _ExperimentalConfig(profile_all_threads=every_thread),
    )
    results: list[Any] = []
    _prepare_profiler(config, activities)
    _enable_profiler(config, activities)
    try:
        yield results
    finally:
        results.append(_disable_profiler())


def kernel_times(call: Callable[[], Any]) -> list[KernelTime]:
    """Return the kernels and copies of one call on a GPU, slowest first.

    It follows an equal call, so that what this one left in the L2 is there.
    """
    call()
    torch.cuda.synchronize()
    with profiled({torch.profiler.ProfilerActivity.CUDA}, every_thread=True) as results:
        call()
        torch.cuda.synchronize()
    found = defaultdict[str, list[float]](list)
    for event in results[0].events():
        if event.device_type() == DeviceType.CUDA:
            found[event.name()].append(event.duration_ns() / 1000)
    kernels = [KernelTime(name=name, calls=len(times), us=sum(times)) for name, times in found.items()]
    return sorted(kernels, key=lambda kernel: -kernel.us)
