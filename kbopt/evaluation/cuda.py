"""GPU memory shared between the referee and a child, and the clock inside the child, for CUDA devices.

Inputs lie in memory that the referee allocated and the child opened; outputs are read by the referee where
the child left them, the moment it says that it is done. Both go through CUDA's IPC handles, called by
ctypes in the runtime library that torch has loaded, because torch's own wrappers need a shared /dev/shm.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from kbopt.evaluation.arena import Arena
from kbopt.evaluation.layout import TensorSpec, view

_HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1
_FLUSH_BYTES = 256 * 2**20
_QUEUE_AHEAD_CYCLES = 200_000
"""About 0.1 ms in which the GPU waits while the call's kernels are queued, so that an event pair measures
the device's work and not Python's."""


class _IpcHandle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed."""


def _runtime() -> ctypes.CDLL:
    major = str(torch.version.cuda).partition(".")[0]
    library = ctypes.CDLL(f"libcudart.so.{major}")
    library.cudaIpcOpenMemHandle.argtypes = (ctypes.POINTER(ctypes.c_void_p), _IpcHandle, ctypes.c_uint)
    library.cudaIpcGetMemHandle.argtypes = (ctypes.POINTER(_IpcHandle), ctypes.c_void_p)
    library.cudaMalloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t)
    library.cudaFree.argtypes = (ctypes.c_void_p,)
    library.cudaIpcCloseMemHandle.argtypes = (ctypes.c_void_p,)
    return library


def _check(code: int, what: str, library: ctypes.CDLL | None = None) -> None:
    if code:
        if library is not None:
            library.cudaGetLastError()  # Or torch takes it for the error of its next call.
        raise CudaError(f"{what} failed with CUDA error {code}")


class _Pointer:
    """Device memory as torch's `as_tensor` takes it, without owning it."""

    def __init__(self, address: int, size_bytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size_bytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


def _tensor_at(address: int, size_bytes: int, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(_Pointer(address, size_bytes), device=device)


def _export(library: ctypes.CDLL, address: int) -> str:
    handle = _IpcHandle()
    _check(library.cudaIpcGetMemHandle(ctypes.byref(handle), address), "cudaIpcGetMemHandle", library)
    return bytes(handle).hex()


def _open(library: ctypes.CDLL, handle: str) -> int:
    raw = bytes.fromhex(handle)
    if len(raw) != _HANDLE_BYTES:
        raise CudaError("a memory handle of another size than CUDA's")
    address = ctypes.c_void_p()
    ipc = _IpcHandle.from_buffer_copy(raw)
    code = library.cudaIpcOpenMemHandle(ctypes.byref(address), ipc, _LAZY_PEER_ACCESS)
    _check(code, "cudaIpcOpenMemHandle", library)
    return int(address.value or 0)


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _segment_of(driver: ctypes.CDLL, address: int) -> tuple[int, int]:
    """Base and size in bytes of the allocation that `address` lies in."""
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    code = driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address))
    _check(code, "cuMemGetAddressRange")
    return base.value, size.value


_MOST_ARENA_BYTES = 8 * 2**30
"""The outputs of a block are kept beside its inputs, by the candidate and by the reference's player."""


class CudaArena(Arena):
    """GPU memory of the referee, exported to the child."""

    def _allocate(self, size_bytes: int) -> None:
        self._library = _runtime()
        torch.cuda.set_device(self.device)
        torch.cuda.synchronize(self.device)
        address = ctypes.c_void_p()
        _check(
            self._library.cudaMalloc(ctypes.byref(address), size_bytes), f"cudaMalloc of {size_bytes} bytes"
        )
        self._address = int(address.value or 0)
        self.buffer = _tensor_at(self._address, size_bytes, self.device)
        self.ticket = f"{_export(self._library, self._address)}:{size_bytes}"
        l2_bytes = torch.cuda.get_device_properties(self.device).L2_cache_size
        self._flush = torch.empty(max(_FLUSH_BYTES, 2 * l2_bytes), dtype=torch.uint8, device=self.device)

    def finish_filling(self) -> None:
        """The flush is the referee's, since the child's could be patched away; the L2 is one for all."""
        self._flush.zero_()
        torch.cuda.synchronize(self.device)

    def close(self) -> None:
        torch.cuda.synchronize(self.device)
        self._library.cudaFree(self._address)

    def _max_bytes(self) -> int:
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        return min(free_bytes // 8, _MOST_ARENA_BYTES)


class CudaReader:
    """Reads tensors out of a child's GPU memory. Handles stay open until `close`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._library = _runtime()
        self._driver = _driver()
        self._segments: dict[str, int] = {}

    def copy(self, raw: Any, spec: TensorSpec) -> torch.Tensor:
        """A copy of the output that the child described as `raw`. Raises CudaError."""
        _, _, _, handle, offset = raw
        if spec.size_bytes == 0:
            return torch.empty(spec.shape, dtype=spec.torch_dtype, device=self._device)
        if handle not in self._segments:
            self._segments[handle] = _open(self._library, handle)
        address = self._segments[handle] + offset
        base, size = _segment_of(self._driver, self._segments[handle])
        # A read outside would end this process's own CUDA context.
        if not base <= address <= address + spec.size_bytes <= base + size:
            raise CudaError("an output that lies outside of its memory")
        memory = _tensor_at(address, spec.size_bytes, self._device)
        copied = view(memory, spec, 0).clone()
        torch.cuda.synchronize(self._device)
        return copied

    def close(self) -> None:
        torch.cuda.synchronize(self._device)
        for address in self._segments.values():
            self._library.cudaIpcCloseMemHandle(address)
        self._segments.clear()


class ChildSide:
    """What the child needs: the arena opened, outputs located, calls timed by events."""

    def __init__(self, ticket: str, device: torch.device) -> None:
        torch.cuda.set_device(device)
        torch.cuda.init()
        self._device = device
        self._library = _runtime()
        self._driver = _driver()
        torch.empty(1, device=device)
        handle, _, size = ticket.partition(":")
        self._address = _open(self._library, handle)
        self.buffer = _tensor_at(self._address, int(size), device)
        self._exported: dict[int, str] = {}
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._sleep: Callable[[int], None] = torch.cuda._sleep
        self._synchronize: Callable[[], None] = torch.cuda.synchronize

    def locate(self, address: int) -> tuple[str, int]:
        """The handle of the segment in which `address` lies, and the offset there."""
        if address == 0:
            return "", 0
        base, _ = _segment_of(self._driver, address)
        if base not in self._exported:
            self._exported[base] = _export(self._library, base)
        return self._exported[base], address - base

    def timed(self, call: Callable[[], Any]) -> tuple[Any, int]:
        """The call's result, and its nanoseconds on the device, all streams joined."""
        self._library.cudaCtxResetPersistingL2Cache()
        self._synchronize()
        self._sleep(_QUEUE_AHEAD_CYCLES)
        self._start.record()
        result = call()
        self._end.record()
        self._synchronize()
        return result, int(self._start.elapsed_time(self._end) * 1e6)
