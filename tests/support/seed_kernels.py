"""Runs tasks and kernels from their sources, with other sizes than they ship with."""

import importlib.util
import itertools
import re

import torch

_numbers = itertools.count()


def load_module(source, folder):
    """The module that `source` defines; from a file, because Triton reads its kernels' sources."""
    name = f"loaded_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_sizes(source, sizes):
    """`source` with its upper-case integer constants replaced by `sizes`; all others become 37."""
    return re.sub(
        r"^([A-Z]+) = \d+$", lambda m: f"{m[1]} = {sizes.get(m[1], 37)}", source, flags=re.MULTILINE
    )


def errors(task, kernel, device="cpu"):
    """Largest errors of the task's own model and of the kernel, over the largest value, against float64.

    Checks shape, dtype, and that the inputs are left as they were. The kernel takes the model's weights over
    by name; those that are all alike, as a normalisation's are at first, get values of their own.
    """
    init = task.get_init_inputs()
    torch.manual_seed(0)
    model = task.Model(*init)
    for weight in model.parameters():
        if weight.numel() > 1 and (weight == weight.flatten()[0]).all():
            torch.nn.init.normal_(weight)
    exact_model = task.Model(*init).double()
    exact_model.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    candidate = kernel.ModelNew(*init)
    candidate.load_state_dict(model.state_dict())
    model, exact_model, candidate = (
        m.to(device).train(getattr(task, "TRAINING", True)) for m in (model, exact_model, candidate)
    )
    inputs = [x.to(device) if isinstance(x, torch.Tensor) else x for x in task.get_inputs()]
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    with torch.no_grad():
        exact = exact_model(
            *(x.double() if getattr(x, "dtype", None) == torch.float32 else x for x in inputs)
        )
        expected, actual = model(*inputs), candidate(*inputs)
    assert (actual.shape, actual.dtype, actual.device) == (expected.shape, expected.dtype, expected.device)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True) if isinstance(x, torch.Tensor))
    scale = exact.abs().max()
    return tuple(((y.double() - exact).abs().max() / scale).item() for y in (expected, actual))
