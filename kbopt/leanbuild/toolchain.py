"""The toolchain: the compilers and the torch that a build depends on, as one hashable value."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import cast

from kbopt.core.errors import InfraError

# torch compiles all CUDA extensions with these flags. Without them half-precision sources mean other things.
NVCC_FLAGS = (
    "-D__CUDA_NO_HALF_OPERATORS__",
    "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__",
    "--expt-relaxed-constexpr",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Everything besides the source that a compiled extension depends on.

    `cuda` is "" if torch was built without CUDA, and `nvcc` if no nvcc was found. `arch` is a compute
    capability as torch spells it (`9.0`), or "" without a GPU. `cxx_version` and `nvcc_version` are the
    output of `--version`.
    """

    torch: str
    torch_dir: str
    cuda: str
    arch: str
    cxx: str
    cxx_version: str
    nvcc: str
    nvcc_version: str
    python: str
    machine: str
    cxx_standard: str

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()

    @property
    def torch_includes(self) -> tuple[str, ...]:
        include = Path(self.torch_dir) / "include"
        return (str(include), str(include / "torch" / "csrc" / "api" / "include"))

    @property
    def python_include(self) -> str:
        return sysconfig.get_path("include", scheme="posix_prefix")

    @property
    def cuda_home(self) -> Path:
        if not self.nvcc:
            raise InfraError("no nvcc was found; put it on PATH or set CUDA_HOME to build CUDA candidates")
        # Debian and some images have a script named nvcc on PATH, in another folder than the toolkit.
        for home in (Path(self.nvcc).resolve().parent.parent, Path("/usr/local/cuda")):
            if (home / "include" / "cuda_runtime.h").is_file():
                return home
        raise InfraError(f"no CUDA headers next to {self.nvcc}; set CUDA_HOME to the toolkit's directory")

    @property
    def cuda_libraries(self) -> Path:
        lib64 = self.cuda_home / "lib64"
        return lib64 if lib64.is_dir() else self.cuda_home / "lib"


def detect(*, arch: str = "") -> Toolchain:
    """Return the toolchain of this process. It imports torch and runs each compiler once for its version.

    The caller gives `arch`, because to find it out would create a CUDA context here.
    """
    import torch

    cxx = shutil.which(os.environ.get("CXX", "g++")) or ""
    nvcc = _find_nvcc()
    return Toolchain(
        torch=torch.__version__,
        torch_dir=str(Path(torch.__file__).parent),
        cuda=cast("str | None", torch.version.cuda) or "",
        arch=arch,
        cxx=cxx,
        cxx_version=_version(cxx),
        nvcc=nvcc,
        nvcc_version=_version(nvcc),
        python=sys.version.split()[0],
        machine=platform.machine(),
        cxx_standard=_cxx_standard(Path(torch.__file__).parent),
    )


def _find_nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home and (Path(home) / "bin" / "nvcc").is_file():
        return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin") or ""


def _version(compiler: str) -> str:
    if not compiler:
        return ""
    answer = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=True)
    return answer.stdout.strip()


def _cxx_standard(torch_dir: Path) -> str:
    """Return the C++ standard with which this torch compiles extensions. It differs between versions.

    Raises InfraError if torch's source does not show it.
    """
    source = (torch_dir / "utils" / "cpp_extension.py").read_text()
    found = re.search(r"'-fPIC', '-std=(c\+\+\d+)'", source)
    if found is None:
        raise InfraError(
            f"cannot tell which C++ standard torch in {torch_dir} uses for extensions; "
            "kbopt knows torch 2.6 and later: install one of those"
        )
    return found.group(1)
