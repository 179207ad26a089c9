"""Small tasks in the field's formats, and kernels for them in each format's own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NORM = {
    "name": "scaled_norm",
    "description": "Scales rows to unit mean square.\n\nThe weight is one of the inputs.",
    "axes": {
        "batch": {"type": "var"},
        "width": {"type": "const", "value": 64},
        "double": {"type": "expr", "expression": "2 * width"},
    },
    "inputs": {
        "x": {"shape": ["batch", "double"], "dtype": "float32"},
        "norm_weight": {"shape": ["double"], "dtype": "float32"},
        "eps": {"shape": None, "dtype": "float32"},
    },
    "outputs": {"y": {"shape": ["batch", "double"], "dtype": "float32"}},
    "reference": (
        "import torch\n\n\n"
        "def run(x, norm_weight, eps):\n"
        "    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)\n"
        "    return x * scale * norm_weight\n"
    ),
}
NORM_KERNEL = """
import torch


def run(x, norm_weight, eps, y):
    squares = torch.linalg.vecdot(x.float(), x.float()).div_(x.shape[-1]).add_(eps).rsqrt_()
    torch.mul(x, squares.unsqueeze(-1), out=y)
    y.mul_(norm_weight)
"""
EPS = {"type": "scalar", "value": 1e-5}


def workload(uuid: str, batch: int, **inputs: object) -> dict[str, Any]:
    return {"uuid": uuid, "axes": {"batch": batch}, "inputs": {"x": {"type": "random"}, "eps": EPS, **inputs}}


def write_sol(folder: Path, definition: object = NORM, workloads: list[Any] | None = None) -> Path:
    """A folder of SOL-ExecBench."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "definition.json").write_text(json.dumps(definition))
    lines = [workload("aaaa-1", 32), workload("bbbb-2", 96)] if workloads is None else workloads
    (folder / "workload.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


PRODUCT = {
    "name": "product_n24_k16",
    "op_type": "gemm",
    "axes": {
        "M": {"type": "var"},
        "N": {"type": "const", "value": 24},
        "K": {"type": "const", "value": 16},
    },
    "inputs": {
        "A": {"shape": ["M", "K"], "dtype": "float32"},
        "B": {"shape": ["N", "K"], "dtype": "float32"},
    },
    "outputs": {"C": {"shape": ["M", "N"], "dtype": "float32"}},
    "reference": "import torch\n\ndef run(A, B):\n    return {'C': torch.matmul(A, B.T)}\n",
}
PRODUCT_SOLUTION: dict[str, Any] = {
    "name": "transposed",
    "definition": "product_n24_k16",
    "author": "tests",
    "spec": {
        "language": "python",
        "target_hardware": ["cpu"],
        "entry_point": "main.py::product",
        "destination_passing_style": False,
    },
    "sources": [
        {
            "path": "main.py",
            "content": "from layout import turned\n\n\ndef product(A, B):\n    return turned(B @ A.T)\n",
        },
        {"path": "layout.py", "content": "def turned(matrix):\n    return matrix.T.contiguous()\n"},
    ],
}


def write_traces(root: Path, definition: dict[str, Any] = PRODUCT, rows: tuple[int, ...] = (40, 8)) -> Path:
    """A data set of FlashInfer-Bench with one definition, or one more."""
    name = definition["name"]
    for place in ("definitions/gemm", "workloads/gemm"):
        (root / place).mkdir(parents=True, exist_ok=True)
    (root / f"definitions/gemm/{name}.json").write_text(json.dumps(definition))
    traces = [
        {
            "definition": name,
            "solution": None,
            "workload": {"uuid": f"{name}-{m}", "axes": {"M": m}, "inputs": {"A": {"type": "random"}}},
            "evaluation": None,
        }
        for m in rows
    ]
    (root / f"workloads/gemm/{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in traces))
    return root


HARD_REFERENCE = '''
"""A linear layer, then a squared rectifier."""

import torch
import torch.nn as nn

SUPPORTED_PRECISIONS = ["fp32"]


class Model(nn.Module):
    def __init__(self, rows, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, rows) * 0.1)

    def forward(self, x):
        return torch.relu(x @ self.weight.T).square()


BATCH = 4
rows = 8
columns = 8


def get_inputs():
    return [torch.randn(BATCH, rows)]


def get_init_inputs():
    return [rows, columns]
'''
HARD_SHAPES = """
WIDE = 48
SHAPES = [
    {"batch": 64, "rows": 32, "columns": WIDE},
    {"batch": 3, "rows": 5, "columns": WIDE // 4, "masked": False},
]
"""
HARD_KERNEL = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, rows, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(columns, rows))

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight).clamp_(min=0).square_()
"""


def write_hard(folder: Path, reference: str = HARD_REFERENCE, shapes: str = HARD_SHAPES) -> Path:
    """A folder of KernelBench-Hard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.py").write_text(reference)
    (folder / "shapes.py").write_text(shapes)
    return folder


MODE_REFERENCE = """
import torch
from task import input_t, output_t
from utils import make_match_reference, Exact


def generate_input(size: int, seed: int, scale: float = 1.0) -> input_t:
    generator = torch.Generator()
    generator.manual_seed(seed)
    a = torch.empty(size, size)
    a.uniform_(-1, 1, generator=generator)
    b = torch.randn(size, size, generator=generator) * scale
    c = torch.empty(size, size)
    return a, b, c


def ref_kernel(data: input_t) -> output_t:
    with Exact():
        a, b, c = data
        c[...] = torch.tanh(a) + b
        return c


check_implementation = make_match_reference(ref_kernel)
"""
MODE_TASK = """
from typing import TypeVar

import torch

input_t = TypeVar("input_t", bound=tuple[torch.Tensor, torch.Tensor, torch.Tensor])
output_t = TypeVar("output_t", bound=torch.Tensor)
"""
MODE_UTILS = """
import contextlib


class Exact(contextlib.AbstractContextManager):
    def __exit__(self, *_):
        return None


def make_match_reference(reference):
    def check(data, output):
        return True, ""

    return check


def unused():
    return 0
"""
MODE_YAML = """
# name: tanh-add
files:
  - {"name": "submission.py", "source": "@SUBMISSION@"}
  - {"name": "task.py", "source": "task.py"}
  - {"name": "utils.py", "source": "../utils.py"}
  - {"name": "reference.py", "source": "reference.py"}
  - {"name": "eval.py", "source": "../eval.py"}
lang: "py"
description: |
  Add to a hyperbolic tangent.
tests:
  - {"size": 7, "seed": 11}
benchmarks:
  - {"size": 128, "seed": 21}
  - {"size": 64, "seed": 5, "scale": 0.5}
"""
MODE_KERNEL = """
from task import input_t, output_t


def custom_kernel(data: input_t) -> output_t:
    a, b, c = data
    c.copy_(a).tanh_().add_(b)
    return c
"""


def write_mode(folder: Path, reference: str = MODE_REFERENCE, task: str = MODE_YAML) -> Path:
    """A folder of GPU MODE, whose `utils.py` lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.py").write_text(reference)
    (folder / "task.py").write_text(MODE_TASK)
    (folder.parent / "utils.py").write_text(MODE_UTILS)
    (folder / "task.yml").write_text(task)
    return folder


def safetensors(path: Path, dtype: str, shape: list[int], data: bytes, key: str = "x") -> Path:
    """A file with one tensor."""
    header = json.dumps({key: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path
