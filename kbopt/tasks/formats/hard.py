"""KernelBench-Hard: `reference.py` with `Model` in KernelBench's format, and `shapes.py` with a list SHAPES.

Each shape is a dict of sizes, which stand for variables of `reference.py` by the same name or in capitals.
Neither file is run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kbopt.core.protocol import Precision
from kbopt.core.workloads import is_plain
from kbopt.tasks.formats import expressions, templates
from kbopt.tasks.formats.expressions import UnresolvedError
from kbopt.tasks.formats.model import FormatTask, Workload, fault, text_of, title_in
from kbopt.tasks.source import title_of, validate

CONVENTION: templates.Convention = "module"


def read(folder: Path, name: str) -> tuple[FormatTask, ...]:
    """The task of a folder with `reference.py` and `shapes.py`. Raises `UserError`."""
    path = folder / "reference.py"
    reference = text_of(path)
    validate(reference, str(path))
    shapes = folder / "shapes.py"
    workloads = tuple(
        Workload(
            name=f"shape{number}",
            text=" ".join(f"{key}={value}" for key, value in shape.items()),
            where=f"{shapes}, SHAPES[{number}]",
            values=shape,
        )
        for number, shape in enumerate(_shapes(shapes))
    )
    return (
        FormatTask(
            path=name,
            format="KernelBench-Hard",
            title=title_in(title_of(reference), folder.name),
            workloads=workloads,
            make_source=partial(_source, path, reference),
        ),
    )


def _shapes(path: Path) -> list[dict[str, Any]]:
    """The value of SHAPES: dicts of numbers, text and truth values, and names of such above it."""
    names: dict[str, Any] = {}
    remedy = "It is a list of dicts, written out, as in SHAPES = [{'M': 32, 'N': 64}]"
    for node in templates.parsed(text_of(path), path).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                pass
            case _:
                continue
        if name != "SHAPES":
            names |= _known(name, value, names)
            continue
        if not isinstance(value, ast.List | ast.Tuple) or not value.elts:
            raise fault(f"{path}:{node.lineno}, SHAPES", "no list with shapes in it", remedy)
        return [_shape(entry, names, f"{path}, SHAPES[{n}]", remedy) for n, entry in enumerate(value.elts)]
    raise fault(f"{path}, SHAPES", "it is not defined", remedy)


def _known(name: str, value: ast.expr, names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {name: _evaluated(value, names)}
    except UnresolvedError:
        return {}


def _evaluated(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The constant that `node` is, or the number that it comes to. Raises `UnresolvedError`."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        return expressions.evaluated(ast.unparse(node), names)
    if not is_plain(value):
        raise UnresolvedError(f"{ast.unparse(node)[:40]!r} is no plain value")
    return value


def _shape(node: ast.expr, names: Mapping[str, Any], where: str, remedy: str) -> dict[str, Any]:
    if not isinstance(node, ast.Dict):
        raise fault(f"{where} in line {node.lineno}", f"{ast.unparse(node)[:40]!r}", remedy)
    shape: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise fault(where, "a key that is no string", remedy)
        try:
            shape[key.value] = _evaluated(value, names)
        except UnresolvedError as error:
            raise fault(f"{where}[{key.value!r}]", str(error), "Write the number there") from None
    return shape


def _source(path: Path, reference: str, workload: Workload) -> str:
    module = templates.parsed(reference, path)
    variables = templates.assigned(module)
    sizes, lost = dict[str, Any](), list[str]()
    for key, value in workload.values.items():
        variable = next((name for name in (key, key.upper()) if name in variables), None)
        if variable:
            sizes[variable] = value
        elif value is not False and value is not None:
            lost.append(key)
    if lost:
        raise fault(
            f"{workload.where}[{lost[0]!r}]",
            f"{path} has no variable {lost[0]} or {lost[0].upper()}, which get_inputs could read",
            "Define it there, or leave the shape out; kbopt runs no check.py",
        )
    precision = _precision(module)
    dtype = f"torch.{templates.DTYPES[precision]}"
    where = f"KernelBench-Hard, {path.parent.name}, {workload.name}: {workload.text}"
    title = title_in(title_of(reference), path.parent.name)
    body = templates.without_docstring(reference)
    return templates.hoisted(
        templates.head(title, where, CONVENTION, precision),
        templates.torch_import(body),
        body,
        "\n".join(f"{name} = {value!r}" for name, value in sizes.items()),
        *(
            (templates.BITS, templates.UNPACKED, _WRAPPED.format(dtype=dtype))
            if templates.mixes(module)
            else ()
        ),
    )


_WRAPPED = """
_get_inputs_unpacked, _forward_unviewed = get_inputs, Model.forward


def get_inputs():
    return _packed_inputs(list(_get_inputs_unpacked()), {dtype})


def _forward_viewed(self, *values):
    return _forward_unviewed(self, *_viewed_inputs(values))


Model.forward = _forward_viewed
"""


def _precision(module: ast.Module) -> Precision:
    """What SUPPORTED_PRECISIONS names first, else the lowest precision that the code names."""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="SUPPORTED_PRECISIONS")], value=ast.List(elts=named)):
                stated = [one.value for one in named if isinstance(one, ast.Constant)]
                return next(
                    (one for one in templates.DTYPES if one in stated), templates.named_precision(module)
                )
    return templates.named_precision(module)
