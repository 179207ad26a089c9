"""How an input of a definition is drawn: an expression of PyTorch's for each, and what its kernel is given.

The evaluator casts floating inputs to the one precision that it judges in. Those of another dtype travel as
their bits, in integers of the same size, and are viewed as what they are in the call, which moves no memory.
"""

from __future__ import annotations

import base64
import random
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core.protocol import Precision
from kbopt.core.workloads import is_plain
from kbopt.tasks.formats import safetensors
from kbopt.tasks.formats.model import fault

_MAX_TEXT_BYTES = 512 * 2**10
"""Of a stored tensor in a source, which is also what a language model reads."""

_FLOATS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
_FOURS = ("float4_e2m1", "float4_e2m1fn_x2")
"""Two to a byte along the last dimension."""
_RANGES = {
    "int64": (-1024, 1024),
    "int32": (-1024, 1024),
    "int16": (-1024, 1024),
    "int8": (-128, 128),
    "uint8": (0, 256),
    "bool": (0, 2),
}
DTYPES = (*_FLOATS, *_FOURS, *_RANGES)
"""What a definition may say of a tensor."""

_BITS = {8: "int64", 4: "int32", 2: "int16", 1: "uint8"}
_PRECISIONS: dict[str, Precision] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

_BY_NAME = (
    (r"(\w*_)?(layer)?norm\d*_weight", "1 + 0.1 * torch.randn({shape})"),
    (r"(\w*_)?(layer)?norm\d*_bias", "0.1 * torch.randn({shape})"),
    (r"(\w+_)?(rstd|std|variance|var)\d*", "torch.randn({shape}).abs() + 0.1"),
    (r"attention_mask|causal_mask", "torch.full({shape}, -1e4).triu(1)"),
    (r"(x|text|aspect_ratio|drop)_mask", "torch.randint(0, 2, {shape})"),
    (r"(rope_)?(cos|sin)(_cached)?", "torch.{trig}(torch.randn({shape}))"),
    (r"attn_weights|attention_weights|routing_weights", "torch.softmax(torch.randn({shape}), dim=-1)"),
    (r"A_cumsum", "torch.empty({shape}).uniform_(-0.1, 0.0).cumsum(dim=-1)"),
    (r"A_log", "torch.empty({shape}).uniform_(-5.0, -1.0)"),
    (r"A|g", "torch.empty({shape}).uniform_(-{most}, 0.0)"),
    (r"(\w+_)?(weights?|projs?|weight_matrix)\d*", "torch.randn({shape}) / {fan_in} ** 0.5"),
)
"""Inputs of SOL-ExecBench whose names tell what values they can have. Weights and biases of norms vary,
unlike there: constants could not tell a kernel that uses them from one that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A tensor or, with `shape` None, a Python number of a definition."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str


def precision_of(specs: tuple[Spec, ...]) -> Precision:
    """What a task is judged in: the lowest of bf16, fp16 and fp32 that its tensors have."""
    dtypes = {spec.dtype for spec in specs if spec.shape is not None}
    return next((_PRECISIONS[dtype] for dtype in _PRECISIONS if dtype in dtypes), "fp32")


def allocated(spec: Spec) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a tensor as torch has it: two values of four bits are one element."""
    assert spec.shape is not None
    if spec.dtype in _FOURS:
        return (*spec.shape[:-1], spec.shape[-1] // 2), "float4_e2m1fn_x2"
    return spec.shape, spec.dtype


def given(spec: Spec, precision: Precision) -> str:
    """What follows an argument in the call, to view bits as what they are; empty where they are values."""
    bits = _bits(spec, precision)
    return f".view(torch.{allocated(spec)[1]})" if bits else ""


def packed(spec: Spec, expression: str, precision: Precision) -> str:
    """`expression`, a tensor of the dtype, as it travels."""
    bits = _bits(spec, precision)
    return f"{expression}.view(torch.{bits})" if bits else expression


def drawn(spec: Spec, precision: Precision, *, named: bool, probabilities: bool) -> str:
    """An expression that draws the input. `named`: as its name says; `probabilities`: rows sum to one."""
    assert spec.shape is not None
    if spec.dtype in _RANGES:
        low, high = _RANGES[spec.dtype]
        return f"torch.randint({low}, {high}, {spec.shape}, dtype=torch.{spec.dtype})"
    if spec.dtype in _FOURS:
        return f"torch.randint(0, 256, {allocated(spec)[0]}, dtype=torch.uint8)"
    value = f"torch.randn({spec.shape}, dtype=torch.{spec.dtype})"
    if _FLOATS[spec.dtype] == 1:
        value = f"torch.randn({spec.shape}).clamp(-2, 2).to(torch.{spec.dtype})"
    elif probabilities:
        value = f"torch.softmax(torch.randn({spec.shape}), dim=-1).to(torch.{spec.dtype})"
    elif named and (by_name := _by_name(spec)):
        value = f"({by_name}).to(torch.{spec.dtype})"
    return packed(spec, value, precision)


def _by_name(spec: Spec) -> str:
    assert spec.shape is not None
    for pattern, expression in _BY_NAME:
        if not re.fullmatch(pattern, spec.name):
            continue
        if ("fan_in" in expression or "triu" in expression) and len(spec.shape) < 2:
            continue
        return expression.format(
            shape=spec.shape,
            trig="sin" if "sin" in spec.name else "cos",
            most=5.0 if spec.name == "g" else 1.0,
            fan_in=max(1, spec.shape[-1] if spec.shape else 1),
        )
    return ""


def number(spec: Spec, seed: str) -> bool | int | float:
    """A random number for a scalar input without a value: the same in each call, since it is no tensor."""
    rng = random.Random(f"{seed}/{spec.name}")
    if spec.dtype in _RANGES:
        value = rng.randrange(*_RANGES[spec.dtype])
        return bool(value) if spec.dtype == "bool" else value
    return rng.gauss(0.0, 1.0)


def stored(spec: Spec, tensor: safetensors.Stored, precision: Precision, path: Path) -> str:
    """An expression with the values in it, by the source's function `_stored`. Raises `UserError`."""
    shape, dtype = allocated(spec)
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise fault(
            f"{path}, {spec.name}",
            f"{tensor.dtype} of {list(tensor.shape)}, and the definition says {dtype} of {list(shape)}",
            "Take the file that belongs to this workload",
        )
    text = base64.b85encode(zlib.compress(tensor.data, 9)).decode()
    if len(text) > _MAX_TEXT_BYTES:
        raise fault(
            f"{path}, {spec.name}",
            f"{len(text) / 2**10:.0f} KiB as text, and a task's source carries {_MAX_TEXT_BYTES // 2**10}",
            'Take a smaller workload, or make the input {"type": "random"}',
        )
    return packed(spec, f'_stored("{text}", torch.{dtype}, {shape})', precision)


STORED = '''
def _stored(text, dtype, shape):
    """A tensor of the workload's own."""
    data = bytearray(zlib.decompress(base64.b85decode(text)))
    return torch.frombuffer(data, dtype=dtype).reshape(shape).to(torch.empty(0).device)
'''
"""What `stored` needs in the source, with `import base64` and `import zlib`."""


def _bits(spec: Spec, precision: Precision) -> str:
    """The dtype of the integers that carry the input's bits; empty where it travels as it is."""
    if spec.shape is None or spec.dtype in _RANGES or _PRECISIONS.get(spec.dtype) == precision:
        return ""
    return _BITS[_FLOATS.get(spec.dtype, 1)]


def scalar(value: Any) -> str:
    """A Python number as text; empty where `value` is none, or not finite."""
    return repr(value) if isinstance(value, bool | int | float) and is_plain(value) else ""
