"""Several Python modules as one: what one imports from another stands above it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping

from kbopt.tasks.formats.model import fault
from kbopt.tasks.formats.templates import bound, following, hoisted, parsed, without_docstring


def joined(texts: Mapping[str, str], entry: str, where: object, *, needed: Collection[str] = ()) -> str:
    """The module `entry` of `texts`, with what it imports from the others of them above it.

    `texts` has each module by its dotted name. With `needed`, statements that only define names which these
    names do not need are left out. Raises `UserError` where a text does not parse, or where two modules
    define one name.
    """
    parts: list[str] = []
    owners: dict[str, str] = {}
    shared: dict[str, tuple[str, str]] = {}
    for name in _in_order(texts, entry, where):
        text = without_docstring(_local(texts[name], name, texts, where))
        for defined in (one for node in ast.parse(text).body for one in _defined(node)):
            if owners.setdefault(defined, name) != name:
                shared[defined] = (owners[defined], name)
        parts.append(text)
    whole = hoisted("", *parts)
    whole = reduced(whole, needed) if needed else whole
    for defined in (one for node in ast.parse(whole).body for one in _defined(node)):
        if defined in shared:
            raise fault(
                where, f"{' and '.join(shared[defined])} both define {defined}", "Give one another name"
            )
    return whole


def reduced(text: str, needed: Collection[str]) -> str:
    """`text` with the statements that `needed` needs, and those that do more than define names."""
    nodes = [node for node in ast.parse(text).body if not _is_main(node)]
    wanted, kept = set(needed), set[int]()
    while True:
        more = {
            number
            for number, node in enumerate(nodes)
            if number not in kept and (bound(node) & wanted or not _only_defines(node))
        }
        if not more:
            break
        kept |= more
        wanted |= {name for number in more for name in _names(nodes[number])}
    lines = text.split("\n")
    parts: list[str] = []
    for number in sorted(kept):
        part = _lines(nodes[number], lines)
        if part not in parts or not isinstance(nodes[number], ast.Import | ast.ImportFrom):
            parts.append(part)
    return "\n\n".join(parts) + "\n"


def _in_order(texts: Mapping[str, str], entry: str, where: object) -> list[str]:
    """The modules that `entry` needs, each after those that it imports, `entry` last."""
    done: list[str] = []
    under_way: list[str] = []

    def visit(name: str) -> None:
        if name in done or name in under_way:
            return
        under_way.append(name)
        for node in ast.walk(parsed(texts[name], f"{where}, {name}")):
            for _, other in _imported(node, name, texts):
                visit(other)
        done.append(name)

    visit(entry)
    return done


def _imported(node: ast.AST, name: str, texts: Mapping[str, str]) -> Iterable[tuple[ast.alias, str]]:
    """What a statement of the module `name` imports from modules of `texts`: each alias with its module."""
    match node:
        case ast.ImportFrom(module=module, names=aliases, level=level):
            inside = [*name.split("."), *([""] if _is_package(name, texts) else [])]
            package = inside[:-level] if level else []
            origin = ".".join([*package, *([module] if module else [])])
            for alias in aliases:
                inner = f"{origin}.{alias.name}" if origin else alias.name
                is_name = origin != name and alias.name in _bound_by(texts.get(origin, ""))
                if inner in texts and not is_name:
                    yield alias, inner
                elif origin in texts:
                    yield alias, origin
        case ast.Import(names=aliases):
            yield from ((alias, alias.name) for alias in aliases if alias.name in texts)


def _bound_by(text: str) -> set[str]:
    """The names that a module binds; none if it does not parse, which is said where it is needed."""
    try:
        return {name for node in ast.parse(text).body for name in bound(node)}
    except (SyntaxError, ValueError):
        return set()


def _is_package(name: str, texts: Mapping[str, str]) -> bool:
    """Whether the module is an `__init__.py`, whose relative imports start at its own folder."""
    return any(other.startswith(f"{name}.") for other in texts)


def _local(text: str, name: str, texts: Mapping[str, str], where: object) -> str:
    """`text` with its imports from the other modules replaced by what stands above it."""
    lines = text.split("\n")
    nodes = [one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Import | ast.ImportFrom)]
    whole = [
        alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if not alias.asname
    ]
    for node in reversed(nodes):
        found = list(_imported(node, name, texts))
        if not found:
            continue
        aliases = [alias for alias, _ in found]
        others = [alias for alias in node.names if alias not in aliases]
        said = [_alias(node, alias, origin, texts, whole) for alias, origin in found]
        if others and isinstance(node, ast.Import):
            said.append(ast.unparse(ast.Import(names=others)))
        elif others:
            raise fault(where, f"{ast.unparse(node)!r} in {name}: a part is of no file", "Add that file")
        indent = lines[node.lineno - 1][: node.col_offset]
        said = [line for line in said if line] or (["pass"] if indent else [])
        said += following(node, lines)
        lines[node.lineno - 1 : node.end_lineno] = [indent + line for line in said]
    return "\n".join(lines)


def _alias(
    node: ast.Import | ast.ImportFrom,
    alias: ast.alias,
    origin: str,
    texts: Mapping[str, str],
    whole: Collection[str],
) -> str:
    """What stands for `alias`. `whole` are the modules that the text imports by their whole names."""
    is_module = isinstance(node, ast.Import) or origin.rpartition(".")[2] == alias.name != node.module
    if not is_module:
        return f"{alias.asname} = {alias.name}" if alias.asname and alias.asname != alias.name else ""
    if isinstance(node, ast.Import) and not alias.asname:
        top = origin.partition(".")[0]
        return f"{top} = {_namespace(top, [one for one in whole if one in texts], texts)}"
    return f"{alias.asname or alias.name} = {_namespace(origin, [origin], texts)}"


def _namespace(name: str, modules: Collection[str], texts: Mapping[str, str]) -> str:
    """An expression for the module or folder `name`, with the modules below it of `modules`."""
    below = {one.removeprefix(f"{name}.").partition(".")[0] for one in modules if one.startswith(f"{name}.")}
    own = _bound_by(texts[name]) - {"annotations"} if name in modules else set()
    fields = {one: one for one in own}
    fields |= {one: _namespace(f"{name}.{one}", modules, texts) for one in below}
    said = ", ".join(f"{field}={value}" for field, value in sorted(fields.items()))
    return f'__import__("types").SimpleNamespace({said})'


def _defined(node: ast.stmt) -> set[str]:
    """The functions, classes and variables that a statement defines, without what it imports."""
    return set() if isinstance(node, ast.Import | ast.ImportFrom) else bound(node)


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in _names(node.test)


def _only_defines(node: ast.stmt) -> bool:
    """Whether leaving the statement out changes nothing but the names that it binds."""
    match node:
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.AnnAssign(target=ast.Name()):
            return True
        case ast.ImportFrom(module="__future__"):
            return False
    return isinstance(
        node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    )


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _lines(node: ast.stmt, lines: list[str]) -> str:
    """The statement's text with its decorators, and the comments right above it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first : node.end_lineno])
