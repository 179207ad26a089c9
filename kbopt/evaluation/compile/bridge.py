"""The library between candidates and torch, compiled once per toolchain and kept in the store.

It is trusted code: whoever starts the evaluator builds it, candidates only link to it.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from functools import cache
from pathlib import Path

from kbopt.core.errors import InfraError
from kbopt.evaluation.compile.store import Store, build_key
from kbopt.evaluation.compile.toolchain import Toolchain

HEADERS = Path(__file__).parent / "headers"
LIBRARY = "libkbopt_bridge.so"
BUILD_TIMEOUT_S = 600.0


@cache
def headers_key() -> str:
    """A hash over every header shipped with kbopt: part of the key of whatever they compile."""
    digest = hashlib.sha256()
    for path in sorted(path for path in HEADERS.rglob("*") if path.is_file()):
        digest.update(path.relative_to(HEADERS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def ensure_bridge(store: Store, toolchain: Toolchain) -> Path:
    """The path of the bridge for `toolchain`, built now unless the store has it.

    Takes about half a minute of one core the first time. Raises `InfraError` with the compiler's words
    if it does not build: then this installation of torch cannot build any extension.
    """
    key = build_key((HEADERS / "bridge.cpp").read_text(), flags=_flags(), toolchain_key=toolchain.key)
    with store.building(key) as found:
        entry = found
        if entry is None:
            staging = store.staging()
            started = time.monotonic()
            _compile(toolchain, staging / LIBRARY)
            entry = store.publish(key, staging, ok=True, log="", seconds=time.monotonic() - started)
            (staging / LIBRARY).unlink()
            staging.rmdir()
    store.verify(entry)
    return entry.directory / LIBRARY


def _flags() -> dict[str, str]:
    return {"kind": "bridge", "interface": (HEADERS / "kbopt_bridge.h").read_text()}


def _compile(toolchain: Toolchain, target: Path) -> None:
    libraries = Path(toolchain.torch_dir) / "lib"
    with_cuda = bool(toolchain.cuda)
    command = [
        toolchain.cxx,
        f"-std={toolchain.cxx_standard}",
        *("-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}"),
        f"-I{HEADERS}",
        *(f"-isystem{include}" for include in (*toolchain.torch_includes, toolchain.python_include)),
        *(("-DKBOPT_WITH_CUDA", f"-isystem{toolchain.cuda_home / 'include'}") if with_cuda else ()),
        str(HEADERS / "bridge.cpp"),
        *("-o", str(target)),
        *(f"-L{libraries}", "-ltorch_python", "-ltorch_cpu", "-lc10"),
        *(("-lc10_cuda",) if with_cuda else ()),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if answer.returncode != 0:
        raise InfraError(
            f"the bridge to torch {toolchain.torch} does not compile with {toolchain.cxx}; "
            f"check that this compiler builds any torch extension:\n{answer.stderr[-4000:]}"
        )
