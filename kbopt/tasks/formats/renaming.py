"""Names of a Python module's top level, given others wherever the module means them.

Attributes, keywords, methods, and what a function or class calls so itself keep their names. So does text:
`globals()["run"]` is not found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Scope = _Function | _Comprehension | ast.ClassDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Mention = ast.Name | ast.JoinedStr | ast.alias | ast.Global | _Definition
_LINE = re.compile(r"\r\n|\r|\n")
_DEFINES = re.compile(rb"(?:async\s+)?(?:def|class)\s+")


def renamed(text: str, names: Mapping[str, str]) -> str:
    """`text`, which parses, with these names of its top level replaced, comments and all else as they are."""
    if not any(name in text for name in names):
        return text
    whole = text.encode()
    starts = [0, *(len(text[: found.end()].encode()) for found in _LINE.finditer(text))]
    uses = _Uses(names)
    uses.visit(ast.parse(text))
    for node in sorted(uses.found, key=lambda one: (one.lineno, one.col_offset), reverse=True):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        if isinstance(node, _Definition):  # What follows its name is changed already.
            found = _DEFINES.match(whole, first)
            assert found is not None
            first, last = found.end(), found.end() + len(node.name.encode())
        whole = whole[:first] + _said(node, whole[first:last].decode(), names).encode() + whole[last:]
    return whole.decode()


def _said(node: _Mention, text: str, names: Mapping[str, str]) -> str:
    """What stands in the place of `text`, which mentions a name."""
    match node:
        case ast.JoinedStr():
            return ast.unparse(node)
        case ast.alias(name=name, asname=other):
            return f"{name} as {names[other or name]}"
    return re.sub(r"\w+", lambda found: names.get(found[0], found[0]), text)


class _Uses(ast.NodeVisitor):
    """The nodes that mention a name of the module."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.found: list[_Mention] = []
        self._names = names
        self._hidden, self._hidden_within = frozenset[str](), frozenset[str]()

    def _is_meant(self, name: str) -> bool:
        return name in self._names and name not in self._hidden

    def visit_Name(self, node: ast.Name) -> None:
        if self._is_meant(node.id):
            self.found.append(node)

    def visit_Global(self, node: ast.Global) -> None:
        if set(node.names) & set(self._names):
            self.found.append(node)

    def visit_alias(self, node: ast.alias) -> None:
        if self._is_meant(node.asname or node.name):
            self.found.append(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Python 3.11 has no places in an f-string: one that mentions a name is written anew.
        inner = _Uses(self._names)
        inner._hidden, inner._hidden_within = self._hidden, self._hidden_within
        inner.generic_visit(node)
        for one in inner.found:
            if isinstance(one, ast.Name):
                one.id = self._names[one.id]
        if inner.found:
            self.found.append(node)

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, _Scope):
            super().visit(node)
            return
        if not isinstance(node, _Function | ast.ClassDef) or isinstance(node, ast.Lambda):
            outside: list[ast.AST] = [node.args] if isinstance(node, ast.Lambda) else []
            inside = [one for one in ast.iter_child_nodes(node) if one not in outside]
        else:
            if self._is_meant(node.name):
                self.found.append(node)
            inside = list(node.body)
            outside = [one for one in ast.iter_child_nodes(node) if one not in inside]
        for one in outside:
            self.visit(one)
        before = self._hidden, self._hidden_within
        own, stated = _own(node)
        self._hidden = (self._hidden_within | own) - stated
        if not isinstance(node, ast.ClassDef):  # Methods do not see the names of their class.
            self._hidden_within = self._hidden
        for one in inside:
            self.visit(one)
        self._hidden, self._hidden_within = before


def _own(scope: _Scope) -> tuple[set[str], set[str]]:
    """The names that a function, class or comprehension binds for itself, and those it says are global."""
    own, stated = set[str](), set[str]()
    left: list[ast.AST] = list(ast.iter_child_nodes(scope))
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        left = [*scope.body, *([] if isinstance(scope, ast.ClassDef) else [scope.args])]
    while left:
        node = left.pop()
        own |= set(_binds(node))
        stated |= set(node.names) if isinstance(node, ast.Global) else set()
        if not isinstance(node, _Scope):
            left += ast.iter_child_nodes(node)
    return own, stated


def _binds(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=other):
            yield other or name.split(".")[0]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
