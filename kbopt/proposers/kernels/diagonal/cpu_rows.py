"""Diagonal matrix, given by its diagonal, times matrix: each row is scaled. Takes finite values."""
# seed: diagonal/cpu_rows

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn as nn

OPTIMIZATION = "-O3"  # tune: "-O2", "-O3"
UNROLLING = "-fno-unroll-loops"  # tune: "-fno-unroll-loops", "-funroll-loops"

C_SOURCE = r"""
#include <stdint.h>

#define ROWS 8  // tune: 1, 4, 8, 16, 32, 64
#define SCHEDULE static  // tune: static, dynamic, guided

void scale(const float *restrict a, const float *restrict b, float *restrict c, int64_t rows, int64_t n,
           int threads) {
    #pragma omp parallel for schedule(SCHEDULE, ROWS) num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < n; k++) c[row * n + k] = a[row] * b[row * n + k];
}
"""


# begin: build
def build(source: str, *flags: str) -> ctypes.CDLL:
    """The compiled source, from the folder of an earlier call where the source and the flags agree."""
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-fopenmp",
        "-march=native",
        "-fno-math-errno",
        "-fno-trapping-math",
        *flags,
    ]
    key = hashlib.sha256("\0".join([*command, source]).encode()).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"kernels-{os.getuid()}"
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or private)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unfinished = Path(scratch) / "kernel.so"
            command += ["-x", "c", "-", "-o", str(unfinished), "-lm"]
            done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            unfinished.replace(library)
    return ctypes.CDLL(str(library))


def address(x: torch.Tensor) -> ctypes.c_void_p:
    """Where the values of a contiguous fp32 tensor on the CPU lie."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.is_contiguous():
        raise TypeError(f"this kernel takes contiguous fp32 tensors on the CPU, not {x.dtype} on {x.device}")
    return ctypes.c_void_p(x.data_ptr())


# end: build


library = build(C_SOURCE, OPTIMIZATION, UNROLLING)


class ModelNew(nn.Module):
    def forward(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        A, B = A.contiguous(), B.contiguous()
        C = torch.empty_like(B)
        rows, n = B.shape
        sizes = (ctypes.c_int64(rows), ctypes.c_int64(n), torch.get_num_threads())
        library.scale(address(A), address(B), address(C), *sizes)
        return C
