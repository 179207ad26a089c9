"""Sources in KernelBench's format, put together from a format's own reference."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from kbopt.core.errors import UNPARSABLE, place_of
from kbopt.core.protocol import Precision
from kbopt.tasks.formats.model import fault
from kbopt.tasks.formats.renaming import renamed

Convention = str
"""How a format's kernels are called: `arguments`, `data` or `module`."""

DTYPES: Mapping[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_RESERVED = (
    *("Model", "ModelNew", "get_inputs", "get_init_inputs", "get_workloads", "reference_run", "drawn"),
    *("_stored", "_ordered_outputs", "_allocated_outputs", "_written_outputs", "_spread_data"),
    "_called_kernel",
    *("_packed_inputs", "_viewed_inputs", "_narrowed_outputs"),
)
"""Names of KernelBench's format, and of what is added to references and kernels."""
_FUTURE = "__future__"
_CONVENTION = re.compile(r"^# convention: (\w+)$", re.MULTILINE)
_PRECISION = re.compile(r"^# precision: (fp32|fp16|bf16)$", re.MULTILINE)


def head(title: str, where: str, convention: Convention, precision: Precision) -> str:
    """The first lines of a source: what it computes, where it is from, and how it is judged."""
    told = one_line(title).replace("\\", "\\\\").replace('"', "'")
    lines = (
        f"from {one_line(where)}",
        f"convention: {convention}",
        f"precision: {precision}",
    )
    return f'"""{told}"""\n' + "\n".join(f"# {line}" for line in lines)


def one_line(text: str) -> str:
    """`text` as a comment or docstring may have it."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def convention_of(source: str) -> Convention:
    """How kernels for the task of this source are called; empty for one in KernelBench's own format."""
    found = _CONVENTION.search(source)
    return found[1] if found else ""


def precision_of(source: str) -> Precision | None:
    """The precision that a format's task is stated in; None for one in KernelBench's own format."""
    found = _PRECISION.search(source) if convention_of(source) else None
    return next((one for one in DTYPES if found and one == found[1]), None)


def parsed(text: str, where: object) -> ast.Module:
    """The module of a reference. Raises `UserError` where it is no Python."""
    try:
        return ast.parse(text)
    except UNPARSABLE as error:
        raise fault(where, f"no Python source, {place_of(error)}", "Mend it there") from None


def functions(module: ast.Module) -> Mapping[str, ast.FunctionDef]:
    """The functions at the top level, by name."""
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


def bound(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> set[str]:
    """The names that a statement at the top level binds, or a part of one."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name.split(".")[0] for alias in aliases}
    blocks = ast.stmt | ast.ExceptHandler | ast.match_case
    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, blocks)]
    stored = {
        name.id
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, blocks)
        for name in ast.walk(child)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    return stored.union(*map(bound, inner))


def assigned(module: ast.Module) -> set[str]:
    """The variables of a module: names that it binds, but for functions, classes and what it imports."""
    others = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return {name for node in module.body if not isinstance(node, others) for name in bound(node)}


def own_names(text: str) -> dict[str, str]:
    """Another name for each that `text` binds and that KernelBench's format, or what is added here, takes."""
    module = ast.parse(text)
    taken = {name for node in module.body for name in bound(node)}
    own = dict[str, str]()
    for name in sorted(taken & set(_RESERVED)):
        own[name] = f"Own{name}" if name[0] == "M" else f"own_{name.lstrip('_')}"
        while own[name] in text:
            own[name] += "_"
    return own


def without_reserved(text: str) -> str:
    """`text` with names of its own for those that are taken."""
    return renamed(text, own_names(text))


def without_docstring(text: str) -> str:
    """`text` without the docstring of its module, of which a source has one already."""
    module = ast.parse(text)
    if ast.get_docstring(module) is None:
        return text
    first, lines = module.body[0], text.split("\n")
    return "\n".join(lines[: first.lineno - 1] + lines[first.end_lineno :])


def following(node: ast.stmt, lines: list[str]) -> list[str]:
    """What stands behind a statement and a semicolon on its last line, if it is no comment."""
    assert node.end_lineno is not None
    rest = (
        lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip().removeprefix(";").strip()
    )
    return [rest] if rest and not rest.startswith("#") else []


def hoisted(head: str, *parts: str) -> str:
    """The parts one after the other; their `from __future__` imports stand before all but `head`."""
    future, rest = dict[str, None](), [head]
    for part in parts:
        lines = part.split("\n")
        for node in reversed(ast.parse(part).body if _FUTURE in part else []):
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                future[ast.unparse(node)] = None
                lines[node.lineno - 1 : node.end_lineno] = following(node, lines)
        rest.append("\n".join(lines).strip())
    rest.insert(1, "\n".join(future))
    return "\n\n\n".join(part for part in rest if part) + "\n"


def quoted(text: str) -> str:
    """A literal of `text` that can be read as it is."""
    if "'''" in text or text.endswith(("'", "\\")) or "\r" in text or "\0" in text:
        return repr(text)
    return f"r'''{text}'''"


def attributes(module: ast.Module) -> set[str]:
    """The names of all attributes that the code mentions, such as dtypes of torch."""
    return {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}


def named_precision(module: ast.Module) -> Precision:
    """The lowest of bf16, fp16 and fp32 whose dtype the code names; fp32 where it names none."""
    named = attributes(module)
    if "bfloat16" in named:
        return "bf16"
    return "fp16" if named & {"float16", "half"} else "fp32"


def mixes(module: ast.Module) -> bool:
    """Whether the code names floats other than fp32, so that its inputs may be of several dtypes."""
    named = attributes(module)
    floats = ("float16", "half", "bfloat16", "float64", "double", "float8", "float4")
    return any(name.startswith(floats) for name in named)


def torch_import(text: str) -> str:
    """What imports torch, where `text` does not."""
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import)]
    return "" if any("torch" in bound(node) for node in imports) else "import torch"


BITS = '''
def _packed_inputs(value, precision):
    """Floats of another precision travel as their bits, since the evaluator casts floats to one precision."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != precision:
        bits = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[value.element_size()]
        return {"bits": value.view(bits), "dtype": str(value.dtype).split(".")[1]}
    if isinstance(value, (tuple, list)):
        items = [_packed_inputs(item, precision) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: _packed_inputs(item, precision) for key, item in value.items()}
    return value
'''
UNPACKED = '''
def _viewed_inputs(value):
    """What travelled as bits, viewed as what it is; an empty tensor stands for memory to write to."""
    if isinstance(value, dict):
        if value.keys() == {"bits", "dtype"}:
            return value["bits"].view(getattr(torch, value["dtype"]))
        if value.keys() == {"zeros"} or value.keys() == {"empty"}:
            like = _viewed_inputs(*value.values())
            make = torch.zeros if "zeros" in value else torch.empty
            return make(like.shape[1:], dtype=like.dtype, device=like.device)
        return {key: _viewed_inputs(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_viewed_inputs(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value
'''
"""In the sources of tasks and kernels whose inputs come from a format's own code."""
