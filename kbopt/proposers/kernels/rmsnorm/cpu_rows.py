"""Root mean square normalisation over the last dimension."""
# seed: rmsnorm/cpu_rows

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
#include <math.h>
#include <stdint.h>

#define SCHEDULE static  // tune: static, dynamic, guided
#define SUMS 16  // tune: 8, 16, 32, 64

// Sums are kept in SUMS places side by side, in registers: independent, and more accurate.
#define EACH(i) for (int i = 0; i < SUMS; i++)

void rmsnorm(const float *restrict x, const float *restrict weight, float *restrict y, int64_t rows,
             int64_t n, float eps, int threads) {
    #pragma omp parallel for schedule(SCHEDULE) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *in = x + row * n;
        float *out = y + row * n, sums[SUMS] = {0}, sum = 0.0f;
        int64_t k = 0;
        for (; k + SUMS <= n; k += SUMS) EACH(i) sums[i] += in[k + i] * in[k + i];
        for (; k < n; k++) sum += in[k] * in[k];
        EACH(i) sum += sums[i];
        float scale = 1.0f / sqrtf(sum / n + eps);
        for (k = 0; k < n; k++) out[k] = weight[k] * (in[k] * scale);
    }
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
    def __init__(self, features: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.shape[-1]
        sizes = (ctypes.c_int64(x.numel() // n), ctypes.c_int64(n), ctypes.c_float(self.eps))
        library.rmsnorm(address(x), address(self.weight), address(y), *sizes, torch.get_num_threads())
        return y
