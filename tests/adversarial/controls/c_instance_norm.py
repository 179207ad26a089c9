"""One thread sums each channel in fp32, and the variance is the mean of squares less the mean's square."""

import ctypes
import os
import pathlib
import subprocess

import torch

SOURCE = r"""
#include <math.h>
void kernel(const float *x, float *out, long channels, long n) {
  for (long c = 0; c < channels; c++) {
    const volatile float *from = x + c * n;
    float sum = 0.0f, squares = 0.0f;
    for (long i = 0; i < n; i++) { float one = from[i]; sum += one; squares += one * one; }
    float mean = sum / n, scale = 1.0f / sqrtf(squares / n - mean * mean + 1e-5f);
    for (long i = 0; i < n; i++) out[c * n + i] = (from[i] - mean) * scale;
  }
}
"""
folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"])
library = folder / "instance_norm.so"
if not library.exists():
    (folder / "instance_norm.c").write_text(SOURCE)
    command = ["cc", "-O2", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(folder / "instance_norm.c"), "-lm"], check=True)
kernel = ctypes.CDLL(str(library)).kernel
kernel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        kernel(x.data_ptr(), out.data_ptr(), x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
        return out
