"""A C kernel with OpenMP, compiled at import into the folder that PyTorch's extensions are built in."""

import ctypes
import os
import pathlib
import subprocess

import torch

SOURCE = r"""
#include <math.h>
void kernel(const float *restrict x, float *restrict y, long n) {
  #pragma omp parallel for simd
  for (long i = 0; i < n; i++) y[i] = tanhf(x[i]) * 1.5f + sinf(x[i]);
}
"""
folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"])
library = folder / "kernel.so"
if not library.exists():
    (folder / "kernel.c").write_text(SOURCE)
    command = ["cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(folder / "kernel.c"), "-lm"], check=True)
kernel = ctypes.CDLL(str(library)).kernel
kernel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        kernel(x.data_ptr(), out.data_ptr(), x.numel())
        return out
