"""Guesses from the text of a C++ or CUDA source which headers it needs, so that lean ones can be tried first.

A wrong guess costs only time: the attempt fails, and torch's own headers are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Headers that torch/extension.h includes, with the names in namespace std that each declares.
_STANDARD_HEADERS = {
    "iostream": "cout cerr clog endl ostream istream",
    "sstream": "stringstream ostringstream istringstream",
    "iomanip": "setw setprecision fixed",
    "algorithm": "min max clamp sort copy copy_n fill fill_n swap reverse find transform min_element",
    "array": "array",
    "map": "map",
    "unordered_map": "unordered_map",
    "set": "set",
    "unordered_set": "unordered_set",
    "memory": "unique_ptr shared_ptr make_unique make_shared",
    "functional": "function hash plus multiplies",
    "numeric": "accumulate iota",
    "limits": "numeric_limits",
    "stdexcept": "runtime_error invalid_argument out_of_range logic_error",
    "exception": "exception",
    "mutex": "mutex lock_guard unique_lock call_once once_flag",
    "thread": "thread this_thread",
    "atomic": "atomic",
    "chrono": "chrono",
    "complex": "complex",
    "random": "mt19937 mt19937_64 uniform_real_distribution normal_distribution",
    "string_view": "string_view",
    "cstddef": "size_t ptrdiff_t byte",
    "cstring": "memcpy memset",
}
_HEADER_OF = {name: header for header, names in _STANDARD_HEADERS.items() for name in names.split()}

_REDUCED = re.compile(r"\b(at|c10|torch)::(Half|BFloat16)\b|AT_DISPATCH_\w*(HALF|_AND|REDUCED)")
_CUDA_HALF = re.compile(r"\b(__half2?|half2?|__float2half\w*|__half2float)\b")
_CUDA_BFLOAT16 = re.compile(r"\b(__nv_bfloat162?|nv_bfloat16|__float2bfloat16\w*)\b")
_FULL_ONLY = re.compile(
    r"TORCH_LIBRARY|\btorch::(nn|autograd|jit|optim|data|Library)\b|torch/(script|library|csrc)",
    re.MULTILINE,
)
_PYBIND = re.compile(r"\bpy::|\bpybind11::|<pybind11/")
_FUNCTION = re.compile(r"\b(?:torch|at)::([a-z_]\w*)\s*\(")
# An error and the source line that the compiler quotes after it.
_ERROR = re.compile(r"\berror\b.*(?:\n.*){0,2}", re.IGNORECASE)
_TORCH_WORDS = re.compile(
    r"torch|\bat::|c10|Tensor|\bTORCH_|\bAT_|\bC10_|CUDAStream|kbopt|No such file|pybind|scalar_t|ATen"
)


def standard_headers(source: str) -> tuple[str, ...]:
    """Return the standard headers whose names `source` uses, sorted."""
    names = re.findall(r"\bstd::(\w+)", source)
    headers = {_HEADER_OF[name] for name in names if name in _HEADER_OF}
    if re.search(r"\bassert\s*\(", source):
        headers.add("cassert")
    if re.search(r"\b(FLT|DBL)_(MAX|MIN|EPSILON)\b", source):
        headers.add("cfloat")
    if re.search(r"\bU?INT(8|16|32|64|_)?_?(MAX|MIN)\b", source):
        headers.add("climits")
    return tuple(sorted(headers))


def cuda_headers(source: str) -> tuple[str, ...]:
    """Return the CUDA headers that `source` uses and that torch's headers would include."""
    headers = []
    if _CUDA_HALF.search(source):
        headers.append("cuda_fp16.h")
    if _CUDA_BFLOAT16.search(source):
        headers.append("cuda_bf16.h")
    return tuple(headers)


def uses_reduced_types(source: str) -> bool:
    """Return whether `source` names torch's half-precision types or dispatches over them."""
    return _REDUCED.search(source) is not None


def needs_full_headers(source: str) -> bool:
    """Return whether `source` names a part of torch that only torch's full headers have."""
    return _FULL_ONLY.search(source) is not None


def uses_pybind(source: str) -> bool:
    """Return whether `source` uses pybind11 beyond `PYBIND11_MODULE` and `m.def` with a docstring."""
    return _PYBIND.search(source) is not None


def operators(source: str, torch_include: Path) -> tuple[str, ...]:
    """Return the `ATen/ops` headers in this torch of the free functions that `source` calls, sorted."""
    return tuple(sorted(set(_operator_headers(source, torch_include))))


def _operator_headers(source: str, torch_include: Path) -> Iterator[str]:
    for name in _FUNCTION.findall(source):
        header = f"ATen/ops/{name}.h"
        if (torch_include / header).is_file():
            yield header


_BLAMES_MACHINE = re.compile(
    r"fatal error|No such file|cannot open source file|file not found|not find|cannot find|cannot execute"
    r"|No space left|quota exceeded|Read-only file|Permission denied|Input/output error|[Oo]ut of memory"
    r"|memory exhausted|Cannot allocate|temporarily unavailable|Too many open files|internal compiler error"
    r"|[Kk]illed|[Tt]erminated|[Ss]egmentation|[Bb]us error|Illegal instruction|no end after"
)
"""Messages of compilers and linkers about causes that can go away, such as missing files or a full disk."""


def blames_source(log: str) -> bool:
    """Return whether a log has an error, and no message of a cause that can go away."""
    return "error:" in log.replace("error :", "error:") and not _BLAMES_MACHINE.search(log)


def blames_torch(log: str) -> bool:
    """Return whether an error in `log` may come from lean headers that lack a part of torch."""
    errors: list[str] = _ERROR.findall(log)
    return not errors or any(_TORCH_WORDS.search(error) for error in errors)
