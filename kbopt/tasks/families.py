"""Which seed kernels fit which problem of KernelBench's level 1."""

from __future__ import annotations

_LEVEL1 = {
    1: "matmul/nn",
    2: "matmul/nn",
    3: "matmul/nn",
    6: "matmul/nn",
    7: "matmul/nn",
    8: "matmul/nn",
    9: "matmul/nn",
    10: "matmul/nn",
    11: "matmul/nn",
    12: "diagonal",
    13: "matmul/nn",
    14: "triangular/upper",
    15: "triangular/lower",
    16: "matmul/tn",
    17: "matmul/nt",
    18: "matmul/tt",
    19: "elementwise/relu",
    21: "elementwise/sigmoid",
    23: "softmax",
    25: "elementwise/swish",
    28: "elementwise/hard_sigmoid",
    30: "elementwise/softsign",
    32: "elementwise/hard_tanh",
    88: "elementwise/new_gelu",
    95: "cross_entropy",
}
"""By the number in the file's name. The other problems have no seeds and need a language model."""


def level1_family(index: int) -> str:
    """The family of `level1/INDEX`, empty where kbopt ships no seeds for it."""
    return _LEVEL1.get(index, "")
