"""Sizes that are written as arithmetic over the names of axes: `2 * hidden_size`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from kbopt.core.errors import UNPARSABLE

_MAX_CHARS = 500
_MAX_EXPONENT = 64
_MAX_SIZE = 2**48

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class UnresolvedError(ValueError):
    """The expression has no size; the message says why."""


def size_of(text: str, names: Mapping[str, int]) -> int:
    """The size that `text` stands for. Raises `UnresolvedError` where it is no whole number from 0 to 2**48.

    Names, numbers, + - * / // % ** and parentheses are allowed; a quotient has to come out whole.
    """
    value = evaluated(text, names)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise UnresolvedError(f"{text!r} is {value!r}, and a size is a whole number from 0 to 2**48")
    return value


def evaluated(text: str, names: Mapping[str, Any]) -> Any:
    """The number that `text` stands for. Raises `UnresolvedError`."""
    if len(text) > _MAX_CHARS:
        raise UnresolvedError(f"{text[:40]!r}... has {len(text)} characters, and {_MAX_CHARS} are allowed")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, names)
    except UnresolvedError:
        raise
    except UNPARSABLE:
        raise UnresolvedError(f"{text!r} is no arithmetic expression") from None
    except (ArithmeticError, TypeError) as error:
        raise UnresolvedError(f"{text!r}: {error}") from None


def names_in(text: str) -> set[str]:
    """The names that the expression mentions; none where it does not parse."""
    try:
        return {
            node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)
        }
    except UNPARSABLE:
        return set()


def with_names(text: str, names: Mapping[str, str]) -> str:
    """The expression with an expression in the place of each name: Python for a whole number, where
    `size_of` has one.
    """
    tree = _Replacing(names).visit(ast.parse(text.strip(), mode="eval").body)
    divides = any(isinstance(node, ast.Div) for node in ast.walk(tree))
    return f"int({ast.unparse(tree)})" if divides else ast.unparse(tree)


class _Replacing(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(self._names[node.id], mode="eval").body


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            if name not in names:
                known = ", ".join(names) or "none"
                raise UnresolvedError(f"{name!r} has no value; with a value: {known}")
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            one, other = _value(left, names), _value(right, names)
            if not isinstance(one, int | float) or not isinstance(other, int | float):
                raise UnresolvedError(f"{ast.unparse(node)!r} computes with what is no number")
            if isinstance(op, ast.Pow) and not 0 <= other <= _MAX_EXPONENT:
                raise UnresolvedError(f"the exponent {other} is not from 0 to {_MAX_EXPONENT}")
            result = _BINARY[type(op)](one, other)
            if abs(result) > _MAX_SIZE**2:
                raise UnresolvedError("it grows beyond all sizes")
            return result
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, names)
    raise UnresolvedError(f"{ast.unparse(node)!r} is neither a number, a name nor one of + - * / // % **")
