"""A reference that does its work five times over, and kernels for it: two right, one wrong."""

REFERENCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return sum(torch.tanh(x) for _ in range(5)) / 5

def get_inputs():
    return [torch.randn(512, 512)]

def get_init_inputs():
    return []
"""

_KERNEL = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return {expression}
"""

SLOW = _KERNEL.format(expression="sum(torch.tanh(x) for _ in range(5)) / 5")
FAST = _KERNEL.format(expression="torch.tanh(x)")
WRONG = _KERNEL.format(expression="torch.sigmoid(x)")
BROKEN = "import torch\n\nclass ModelNew(:\n"


def fenced(source: str) -> str:
    """As a language model answers."""
    return f"Computing it once is enough.\n\n```python\n{source}\n```\n"
