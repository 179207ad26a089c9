"""Precision and arithmetic, the same in every process that runs a reference, a candidate or a baseline."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from kbopt.core.protocol import Arithmetic, EvalProtocol, Precision
from kbopt.evaluation.transport.layout import dense

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

CONVOLUTIONS = frozenset(
    (
        *("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution"),
        "convolution_overrideable",
        *("cudnn_convolution_transpose", "cudnn_convolution_relu", "cudnn_convolution_add_relu"),
        *("_cudnn_rnn", "mkldnn_rnn_layer", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"),
    )
)
"""ATen's convolutions and recurrent layers. PyTorch lets cuDNN run them in TF32 by default."""
PRODUCTS = CONVOLUTIONS | frozenset(
    (
        *("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "addr", "dot", "vdot", "addbmm"),
        "_addmm_activation",
        *("linear", "_mkldnn_linear", "mkldnn_linear_pointwise", "_scaled_mm", "_int_mm", "_trilinear"),
        *("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"),
        *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
        *("_scaled_dot_product_attention_math", "lstm", "gru", "rnn_tanh", "rnn_relu"),
    )
)
"""ATen's operations that sum products, so that a lower precision rounds their operands."""


def apply(arithmetic: Arithmetic) -> None:
    """Switch TF32 on or off for CUDA's products and convolutions, before a task or candidate is loaded.

    `default` keeps PyTorch's settings, so that times are those that users see.
    """
    if arithmetic != "default":
        torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
        torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"


def keeps_dtypes(task: Any) -> bool:
    """Return whether the task's module says KEEPS_DTYPES = True: its tensors have several precisions."""
    return getattr(task, "KEEPS_DTYPES", False) is True


def placed(
    tensor: torch.Tensor, precision: Precision, device: torch.device, *, keeps: bool = False
) -> torch.Tensor:
    """Return the tensor without gaps, on the device, and in the task's precision if it holds floats.

    Floats of 8 bits keep their dtype. If the task `keeps` dtypes, all tensors do.
    """
    tensor = dense(tensor.detach().resolve_conj().resolve_neg())
    casts = tensor.is_floating_point() and not keeps and not is_float8(tensor)
    return tensor.to(device=device, dtype=DTYPES[precision] if casts else tensor.dtype)


def placed_model(
    model: torch.nn.Module, precision: Precision, device: torch.device, *, keeps: bool = False
) -> torch.nn.Module:
    """Do the same with the model's parameters and buffers, in place, and return the model."""
    if keeps:
        return model.to(device=device)
    tensors = (*model.parameters(), *model.buffers())
    if not any(is_float8(tensor) or tensor.is_complex() for tensor in tensors):
        return model.to(device=device, dtype=DTYPES[precision])
    # `Module.to` would cast these as well, and take the imaginary part off complex numbers.
    return model._apply(lambda t: t.to(device) if is_float8(t) else t.to(device, _dtype(t, precision)))


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """Cast the model's parameters and buffers to double precision, in place, and return the model."""
    return model.double()._apply(lambda t: t.to(torch.complex128) if t.is_complex() else t)


def constructed(
    kind: Callable[..., Any],
    arguments: Sequence[Any],
    seed: int,
    protocol: EvalProtocol,
    device: torch.device,
    *,
    keeps: bool,
) -> Any:
    """Return `kind(*arguments)` made under `seed`. A torch module is placed, and in the protocol's mode."""
    seed_everything(seed)
    model = kind(*arguments)
    if isinstance(model, torch.nn.Module):
        model = placed_model(model, protocol.precision, device, keeps=keeps)
        if protocol.eval_mode:
            model.eval()
    return model


def is_float8(tensor: torch.Tensor) -> bool:
    """Return whether the tensor holds floats of 8 bits, for which torch has few operations."""
    return tensor.is_floating_point() and tensor.dtype.itemsize == 1


def _dtype(tensor: torch.Tensor, precision: Precision) -> torch.dtype:
    return DTYPES[precision] if tensor.is_floating_point() else tensor.dtype


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all work that this process queued. A CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seed_everything(seed: int) -> None:
    """Seed the generators of torch, CUDA, Python and NumPy.

    torch.manual_seed is not used: it takes 1.3 ms, because it formats the stack for each absent kind of
    device.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
