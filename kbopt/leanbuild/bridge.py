"""The bridge: a library between candidates and torch, compiled once per toolchain and kept in the store.

It is trusted code: the evaluator builds it, and candidates only link to it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kbopt.core.errors import InfraError
from kbopt.leanbuild.compilers import run_side_by_side
from kbopt.leanbuild.store import Store, build_key
from kbopt.leanbuild.toolchain import Toolchain

HEADERS = Path(__file__).parent / "headers"
LIBRARY = "libkbopt_bridge.so"
BUILD_TIMEOUT_S = 600.0
_SOURCES = (HEADERS / "bridge" / "tensor.cpp", HEADERS / "bridge" / "python.cpp")


@cache
def headers_key() -> str:
    """Return a hash of all headers of kbopt. It is part of the key of each build that uses them."""
    digest = hashlib.sha256()
    for path in sorted(path for path in HEADERS.rglob("*") if path.is_file()):
        digest.update(path.relative_to(HEADERS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def ensure_bridge(store: Store, toolchain: Toolchain) -> Path:
    """Return the path of the bridge for `toolchain`, and build it first if the store does not have it.

    A build takes two cores some 6 s. Raises InfraError with the compiler's output if the build fails: then
    this installation of torch can probably build no extension.
    """
    source = "".join(path.read_text() for path in _SOURCES)
    key = build_key(source, flags=_flags(), toolchain_key=toolchain.key)
    with store.building(key) as found:
        entry = found
        if entry is None:
            staging = store.staging()
            try:
                started = time.monotonic()
                _build(toolchain, staging / LIBRARY)
                entry = store.publish(key, staging, ok=True, log="", seconds=time.monotonic() - started)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    store.verify(entry)
    return entry.directory / LIBRARY


def _flags() -> dict[str, str]:
    shared = (HEADERS / "kbopt_bridge.h", HEADERS / "bridge" / "handles.h")
    return {"kind": "bridge", "interface": "".join(path.read_text() for path in shared)}


def _build(toolchain: Toolchain, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / f"{source.name}.o" for source in _SOURCES]
        commands = [
            [*_compiler(toolchain), "-c", str(source), "-o", str(file)]
            for source, file in zip(_SOURCES, objects, strict=True)
        ]
        ok, log = run_side_by_side(commands, Path(folder), timeout_s=BUILD_TIMEOUT_S)
        if ok:
            link = _linker(toolchain, objects, target)
            ok, log = run_side_by_side([link], Path(folder), timeout_s=BUILD_TIMEOUT_S)
    if "Python.h: No such file" in log:
        raise InfraError(
            "Python's headers are missing, by which kernels that call load_inline are compiled: install them "
            "(Debian: python3-dev), and ask again"
        )
    if not ok:
        raise InfraError(
            f"the bridge to torch {toolchain.torch} does not compile with {toolchain.cxx}; "
            f"check that this compiler builds any torch extension:\n{log[-4000:]}"
        )


def _compiler(toolchain: Toolchain) -> list[str]:
    cuda = ["-DKBOPT_WITH_CUDA", f"-isystem{toolchain.cuda_home / 'include'}"] if toolchain.cuda else []
    return [
        toolchain.cxx,
        f"-std={toolchain.cxx_standard}",
        *("-O2", "-fPIC", "-fvisibility=hidden", "-DAT_PER_OPERATOR_HEADERS"),
        f"-I{HEADERS}",
        *(f"-isystem{include}" for include in (*toolchain.torch_includes, toolchain.python_include)),
        *cuda,
    ]


def _linker(toolchain: Toolchain, objects: Sequence[Path], target: Path) -> list[str]:
    return [
        toolchain.cxx,
        *("-shared", f"-Wl,-soname,{LIBRARY}", *map(str, objects), "-o", str(target)),
        *(f"-L{Path(toolchain.torch_dir) / 'lib'}", "-ltorch_python", "-ltorch_cpu", "-lc10"),
        *(("-lc10_cuda",) if toolchain.cuda else ()),
    ]
