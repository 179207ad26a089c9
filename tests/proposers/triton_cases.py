"""Small tasks of the shapes that the Triton seeds are for, by name: the family and the task's source."""


def task(family, init, forward, inputs, settings="", arguments="", before=""):
    """A task in KernelBench's form, written out."""
    source = f"""
import torch
import torch.nn as nn
import torch.nn.functional as F
{before}

class Model(nn.Module):
    def __init__(self{", " if arguments else ""}{arguments}):
        super().__init__()
        {init or "pass"}

    def forward(self, *inputs):
        {"x, *rest = inputs"}
        return {forward}


def get_inputs():
    return [{inputs}]


def get_init_inputs():
    return [{settings}]
"""
    return family, source


SPREAD = "torch.randn(3, 1371) * 4"

CASES = {
    **{
        f"elementwise/{name}": task(f"elementwise/{name}", "", forward, SPREAD)
        for name, forward in {
            "tanh": "torch.tanh(x)",
            "gelu": "F.gelu(x)",
            "selu": "torch.selu(x)",
            "softplus": "F.softplus(x)",
        }.items()
    },
    "elementwise/leaky_relu": task(
        "elementwise/leaky_relu", "self.slope = slope", "F.leaky_relu(x, self.slope)", SPREAD, "0.2", "slope"
    ),
    "elementwise/elu": task(
        "elementwise/elu", "self.alpha = alpha", "F.elu(x, self.alpha)", SPREAD, "0.7", "alpha"
    ),
    "elementwise/scaled": task("elementwise/scaled", "", "x * rest[0]", f"{SPREAD}, 3.14"),
    "elementwise/swiglu": task("elementwise/swiglu", "", "F.silu(x) * rest[0]", f"{SPREAD}, {SPREAD}"),
}
