"""CUDA's runtime and driver by ctypes: IPC handles, stream memory operations, allocations.

The libraries are those that torch has loaded. torch's own wrappers of IPC are not used: they need a shared
/dev/shm.
"""

from __future__ import annotations

import ctypes

import torch

_HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1
_PCI_ADDRESS_BYTES = 32
_CLOCK_RATE = 13
"""cudaDevAttrClockRate."""
_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation, and CUDA_ERROR_OUT_OF_MEMORY of the driver."""
_BUFFER_ID = 7
"""CU_POINTER_ATTRIBUTE_BUFFER_ID. It is unique in a process, whereas a later allocation may reuse an
address."""


class _IpcHandle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed."""


def runtime() -> ctypes.CDLL:
    """Return the CUDA runtime that torch was built with."""
    major = str(torch.version.cuda).partition(".")[0]
    library = ctypes.CDLL(f"libcudart.so.{major}")
    library.cudaIpcOpenMemHandle.argtypes = (ctypes.POINTER(ctypes.c_void_p), _IpcHandle, ctypes.c_uint)
    library.cudaIpcGetMemHandle.argtypes = (ctypes.POINTER(_IpcHandle), ctypes.c_void_p)
    library.cudaIpcCloseMemHandle.argtypes = (ctypes.c_void_p,)
    return library


def check(code: int, what: str, library: ctypes.CDLL | None = None) -> None:
    """Raise CudaError if `code`, which the call named `what` returned, is an error."""
    if code:
        if library is not None:
            library.cudaGetLastError()  # Clears the error, or torch would raise it in its next call.
        words = ": out of memory" if code == _OUT_OF_MEMORY else ""
        raise CudaError(f"{what} failed with CUDA error {code}{words}")


class _Pointer:
    """Device memory in the form that `torch.as_tensor` accepts. It does not own the memory."""

    def __init__(self, address: int, size_bytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size_bytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


def tensor_at(address: int, size_bytes: int, device: torch.device) -> torch.Tensor:
    """Return device memory that is owned elsewhere as uint8 of shape (size_bytes,)."""
    return torch.as_tensor(_Pointer(address, size_bytes), device=device)


def export(library: ctypes.CDLL, address: int) -> str:
    """Return the IPC handle of the allocation at `address`, in hexadecimal. Raises CudaError."""
    handle = _IpcHandle()
    check(library.cudaIpcGetMemHandle(ctypes.byref(handle), address), "cudaIpcGetMemHandle", library)
    return bytes(handle).hex()


def open_handle(library: ctypes.CDLL, handle: str) -> int:
    """Open another process's allocation and return its address here. Raises CudaError.

    Anything from a colon on in `handle` is ignored.
    """
    raw = bytes.fromhex(handle.partition(":")[0])
    if len(raw) != _HANDLE_BYTES:
        raise CudaError("a memory handle of another size than CUDA's")
    address = ctypes.c_void_p()
    ipc = _IpcHandle.from_buffer_copy(raw)
    code = library.cudaIpcOpenMemHandle(ctypes.byref(address), ipc, _LAZY_PEER_ACCESS)
    check(code, "cudaIpcOpenMemHandle", library)
    return int(address.value or 0)


def clock_khz(library: ctypes.CDLL, device: torch.device) -> int:
    """Return the peak clock of the device's multiprocessors in kHz."""
    value = ctypes.c_int()
    code = library.cudaDeviceGetAttribute(ctypes.byref(value), _CLOCK_RATE, device.index or 0)
    check(code, "cudaDeviceGetAttribute")
    return value.value


def pci_address(library: ctypes.CDLL, index: int) -> str:
    """Return the device's PCI address as Linux spells it: `0000:3b:00.0`."""
    text = ctypes.create_string_buffer(_PCI_ADDRESS_BYTES)
    check(library.cudaDeviceGetPCIBusId(text, len(text), index), "cudaDeviceGetPCIBusId")
    return text.value.decode().lower()


def driver() -> ctypes.CDLL:
    """Return the NVIDIA driver's library. Raises CudaError if the driver is too old."""
    library = ctypes.CDLL("libcuda.so.1")
    if not hasattr(library, "cuCtxRecordEvent"):
        raise CudaError("the NVIDIA driver is older than CUDA 12.5; install version 555 or a later one")
    library.cuCtxGetCurrent.argtypes = (ctypes.POINTER(ctypes.c_void_p),)
    library.cuCtxRecordEvent.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    for name in ("cuStreamWriteValue32_v2", "cuStreamWaitValue32_v2"):
        getattr(library, name).argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint)
    library.cuPointerGetAttribute.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)
    return library


def segment_of(driver: ctypes.CDLL, address: int) -> tuple[int, int]:
    """Return the base and the size in bytes of the allocation that holds `address`."""
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    code = driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address))
    check(code, "cuMemGetAddressRange")
    return base.value, size.value


def allocation_of(driver: ctypes.CDLL, address: int) -> int:
    """Return the number of the allocation that holds `address`."""
    number = ctypes.c_uint64()
    code = driver.cuPointerGetAttribute(ctypes.byref(number), _BUFFER_ID, address)
    check(code, "cuPointerGetAttribute")
    return number.value
