"""What a model would answer in a search for `quick/softmax`: real C kernels, each better than the one before.

As a program, it prints the script's JSON for `python -m tests.support.openai_server --script FILE`.
"""

from __future__ import annotations

from pathlib import Path

import kbopt.proposers
from kbopt.core import codec
from tests.support.openai_server import Answer, Script

SEED = (Path(kbopt.proposers.__file__).parent / "kernels/softmax/cpu_rows.py").read_text()

NAIVE = '''"""One row after the other, on one thread, without any care."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn as nn

C_SOURCE = """
#include <math.h>

void softmax(const float *x, float *y, long rows, long n, float temperature) {
    for (long row = 0; row < rows; row++) {
        const float *in = x + row * n;
        float *out = y + row * n;
        float most = -INFINITY, sum = 0.0f;
        for (long k = 0; k < n; k++) most = fmaxf(most, in[k]);
        for (long k = 0; k < n; k++) sum += out[k] = expf((in[k] - most) / temperature);
        for (long k = 0; k < n; k++) out[k] /= sum;
    }
}
"""

folder = Path(tempfile.mkdtemp())
command = ["cc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "naive.so"), "-lm"]
subprocess.run(command, input=C_SOURCE, text=True, check=True)
library = ctypes.CDLL(str(folder / "naive.so"))
library.softmax.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_float]


class ModelNew(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, x):
        x = x.contiguous()
        y = torch.empty_like(x)
        library.softmax(x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1], x.shape[-1], self.temperature)
        return y
'''

FIRST = "Write the first kernel for the task `quick/softmax`"
ADVICE = "You advise programmers"


def rewrite(source: str, note: str) -> Answer:
    return Answer(text=f"{note}\n\n```python\n{source}```\n")


def edit(search: str, replace: str, note: str) -> Answer:
    return Answer(text=f"{note}\n\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n")


SCRIPT = Script(
    behaviours=(
        Answer(text="- Several sums side by side let the loop become SIMD code.", when=ADVICE),
        Answer(text=rewrite(NAIVE, "A plain loop over the rows.").text, when=FIRST),
        # Not a kernel at all, once: the question is asked again.
        Answer(text="I would split the rows among the threads.", when="Improve the kernel"),
        Answer(
            text=rewrite(SEED, "All threads, with the exponential as SIMD code.").text,
            when="Improve the kernel",
        ),
        Answer(
            text=edit(
                "#define SUMS 16  // tune: 8, 16, 32, 64",
                "#define SUMS 32  // tune: 8, 16, 32, 64",
                "More sums side by side.",
            ).text,
            when="#define SUMS 16",
        ),
        # For every other question: something new that is right.
        Answer(text=rewrite(SEED + "\n# As it was.\n", "Back to the best one.").text),
    ),
    usd_per_token=1e-6,
)
"""A naive kernel, an answer without code, the seed kernel, a small edit of it; then the seed kernel again."""


if __name__ == "__main__":
    print(codec.dumps(SCRIPT))
