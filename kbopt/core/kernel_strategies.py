"""What first briefs ask for: each another way to build the kernel, those that fit the task first. Pure.

The question is the same for every first brief, and so are most answers to it. An epsilon-net can only keep
what differs, so the difference has to be asked for.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kbopt.core.errors import UNPARSABLE

Bound = Literal["memory", "compute", "latency", "launch"]
"""What a kernel may be limited by; docs/profile.md says when it is which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStrategy:
    """A way to build a kernel, in words for whoever writes it. `fits` are the limits that it works against;
    one that names none suits every task, and goes first. One that `needs_product` is for tasks with a matrix
    product or a convolution alone.
    """

    name: str
    text: str
    fits: tuple[Bound, ...] = ()
    needs_product: bool = False


def suitable(strategies: Sequence[KernelStrategy], source: str) -> tuple[KernelStrategy, ...]:
    """Those that can work for the task of that source; all of them where none would be left."""
    if has_product(source):
        return tuple(strategies)
    return tuple(one for one in strategies if not one.needs_product) or tuple(strategies)


_PRODUCT = re.compile(
    r"mm$|matmul|gemm|^@$|linear|einsum|(^|_)conv(\d|_|$|olution|transpose)|dot|inner$|^v?mv$|^addmv$"
    r"|attention|transformer|lstm|gru(cell)?$|rnn|cdist"
)
"""Names, in lower case, of PyTorch's modules and functions that multiply matrices or convolve. A name too
many costs a question for a strategy that does not fit; a name too few withholds one that might."""
_DIAGONAL = ("diag", "diag_embed", "diagflat")


def has_product(source: str) -> bool:
    """Whether a task names a matrix product or a convolution. One with a diagonal matrix, as in
    `torch.diag(a) @ b`, is a scaling. True where the source cannot be read.
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except UNPARSABLE:
        return True
    return any(_is_product(node) for node in nodes)


def _is_product(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.MatMult()):
            operands, name = [node.left, node.right], "@"
        case ast.Call():
            operands, name = list(node.args), _name(node.func)
            if isinstance(node.func, ast.Attribute):
                operands.append(node.func.value)
        case ast.AugAssign(op=ast.MatMult()):
            return True
        case _:
            return False
    scales = any(isinstance(one, ast.Call) and _name(one.func) in _DIAGONAL for one in operands)
    return _PRODUCT.search(name) is not None and not scales


def _name(function: ast.expr) -> str:
    """The last part of a function's name, in lower case."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return str(name).lower()


def next_strategy(
    strategies: Sequence[KernelStrategy], used: Counter[str], bounds: Sequence[Bound], seed: int
) -> KernelStrategy:
    """Of those asked for least often, the one that fits `bounds` best; `seed` orders what fits equally well.

    `used` counts by name how often each was asked for.
    """

    def rank(strategy: KernelStrategy) -> tuple[int, int, str]:
        places = [place for place, bound in enumerate(bounds) if bound in strategy.fits]
        fit = min(places, default=len(bounds)) if strategy.fits else -1
        return used[strategy.name], fit, hashlib.sha256(f"{seed}/{strategy.name}".encode()).hexdigest()

    return min(strategies, key=rank)
