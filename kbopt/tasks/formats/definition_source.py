"""A definition and a workload as a source in KernelBench's format."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core.protocol import Precision
from kbopt.tasks.formats import expressions, inputs, safetensors, templates
from kbopt.tasks.formats.expressions import UnresolvedError
from kbopt.tasks.formats.model import Workload, fault, seen_in
from kbopt.tasks.formats.renaming import renamed

CONVENTION: templates.Convention = "arguments"
REFERENCE = "reference_run"
"""What the definition's `run` is called: KernelBench runs kernels, which define a `run` too, among the
reference's names, and would have the reference call theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A definition whose fields have the right kinds. `roots` are where stored inputs may lie."""

    path: Path
    format: str
    name: str
    title: str
    axes: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    reference: str
    draws: str
    operation: str
    roots: tuple[Path, ...]


def expect(raw: Mapping[str, Any], field: str, kind: type, where: object) -> None:
    """Raises `UserError` where the field is missing or of another kind."""
    if field not in raw:
        raise fault(f"{where}, {field}", "this field is missing", f"Add it, {_JSON[kind]}")
    if not isinstance(raw[field], kind):
        seen = json.dumps(raw[field])[:60]
        raise fault(f"{where}, {field}", f"{seen}, and it is {_JSON[kind]}", "Mend it there")


_JSON: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}


def _sizes(definition: Definition, workload: Workload) -> dict[str, int]:
    """Each axis with its size, and with what else a workload gives to the definition's own function.

    Raises `UserError` for one that cannot be resolved.
    """
    given, sizes = workload.values["axes"], dict[str, int]()
    unknown = [axis for axis in given if axis not in definition.axes]
    if unknown and not definition.draws:
        raise fault(
            f"{workload.where}, axes.{unknown[0]}",
            f"{definition.path} has no such axis",
            f"It has {', '.join(definition.axes) or 'none'}",
        )
    sizes |= {axis: _size(given[axis], f"{workload.where}, axes.{axis}") for axis in unknown}
    open_axes: dict[str, str] = {}
    for axis, raw in definition.axes.items():
        where = f"{definition.path}, axes.{axis}"
        match raw.get("type"):
            case "const":
                sizes[axis] = _size(raw.get("value"), f"{where}.value")
            case "var":
                if axis not in given:
                    raise fault(
                        f"{workload.where}, axes.{axis}", "this axis has no size", "Add a whole number"
                    )
                sizes[axis] = _size(given[axis], f"{workload.where}, axes.{axis}")
            case "expr":
                expect(raw, "expression", str, where)
                open_axes[axis] = raw["expression"]
            case _:
                raise fault(f"{where}.type", seen_in(raw, "type"), "Allowed: const, var, expr")
    while open_axes:
        ready = [axis for axis, text in open_axes.items() if not expressions.names_in(text) & set(open_axes)]
        for axis in ready or list(open_axes)[:1]:
            sizes[axis] = _evaluated(open_axes.pop(axis), sizes, f"{definition.path}, axes.{axis}.expression")
    for axis, size in given.items():
        if size != sizes[axis]:
            raise fault(
                f"{workload.where}, axes.{axis}",
                f"{size!r}, and {definition.path} says {sizes[axis]}",
                "Leave it out, or make them agree",
            )
    return sizes


def _size(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 2**48:
        raise fault(where, f"{json.dumps(value)[:40]}", "A size is a whole number from 0 to 2**48")
    return value


def _evaluated(text: str, sizes: Mapping[str, int], where: str) -> int:
    try:
        return expressions.size_of(text, sizes)
    except UnresolvedError as error:
        raise fault(where, str(error), "Name axes that have a size, with + - * / // % **") from None


def _specs(definition: Definition, field: str, sizes: Mapping[str, int]) -> tuple[inputs.Spec, ...]:
    found = []
    for name, raw in getattr(definition, field).items():
        where = f"{definition.path}, {field}.{name}"
        dtype, shape = raw.get("dtype"), raw.get("shape", ...)
        if dtype not in inputs.DTYPES:
            raise fault(f"{where}.dtype", seen_in(raw, "dtype"), f"Allowed: {', '.join(inputs.DTYPES)}")
        if shape is not None and not isinstance(shape, list):
            seen = "this field is missing" if shape is ... else json.dumps(shape)[:40]
            raise fault(f"{where}.shape", seen, "A list of axes, or null for a number")
        resolved = (
            shape if shape is None else tuple(_evaluated(str(one), sizes, f"{where}.shape") for one in shape)
        )
        found.append(inputs.Spec(name=name, shape=resolved, dtype=dtype))
        if dtype.startswith("float4") and (not resolved or resolved[-1] % 2):
            raise fault(f"{where}.shape", f"{resolved}", "float4 lies two to a byte: the last axis is even")
    return tuple(found)


def source(definition: Definition, workload: Workload) -> str:
    """The task's source. Raises `UserError`, which names the file and the field."""
    sizes = _sizes(definition, workload)
    arguments = _specs(definition, "inputs", sizes)
    results = _specs(definition, "outputs", sizes)
    precision = inputs.precision_of((*arguments, *results))
    draws = _draws(definition, workload, arguments, sizes, precision)
    names = [
        spec.name if _is_free(spec.name) else f"_argument{number}" for number, spec in enumerate(arguments)
    ]
    call = ", ".join(
        f"{name}{inputs.given(spec, precision)}" for name, spec in zip(names, arguments, strict=True)
    )
    where = f"{definition.format}, {definition.name}, workload {workload.name}: {workload.text}"
    stored = "_stored(" in draws
    return templates.hoisted(
        templates.head(definition.title, where, CONVENTION, precision),
        "import base64\nimport zlib" if stored else "",
        templates.torch_import(definition.reference),
        renamed(definition.reference, _own_names(definition)),
        _ORDERED.format(names=tuple(definition.outputs)),
        _allocation(definition, arguments, results, sizes),
        inputs.STORED if stored else "",
        f"class Model(torch.nn.Module):\n    def forward(self, {', '.join(names)}):\n"
        f"        return _ordered_outputs({REFERENCE}({call}))",
        draws,
        "def get_init_inputs():\n    return []",
    )


def _own_names(definition: Definition) -> dict[str, str]:
    return {**templates.own_names(definition.reference), "run": REFERENCE}


_TAKEN = ("self", "torch", REFERENCE)


def _is_free(name: str) -> bool:
    """Whether an argument may be called so."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in _TAKEN and name[0] != "_"


ALLOCATION = "_allocated_outputs"
"""The function of the source that allocates outputs for kernels which write to their last arguments."""


def _allocation(
    definition: Definition,
    arguments: tuple[inputs.Spec, ...],
    results: tuple[inputs.Spec, ...],
    sizes: Mapping[str, int],
) -> str:
    """It takes the inputs that are tensors, and goes by their sizes: a kernel carries no workload's own. An
    axis that no input has stands there as its size.
    """
    axes, given = dict[str, str](), _given(definition, arguments)
    for axis, size in sizes.items():  # Each after those that its expression names.
        raw = definition.axes.get(axis, {})
        is_open = raw.get("type") == "expr" and axis not in given
        axes[axis] = (
            expressions.with_names(raw["expression"], axes) if is_open else given.get(axis, str(size))
        )
    lines = []
    for spec in results:
        if spec.shape is None:
            continue
        shape, dtype = inputs.allocated(spec)
        texts = [expressions.with_names(str(one), axes) for one in definition.outputs[spec.name]["shape"]]
        if shape != spec.shape:
            texts[-1] = f"({texts[-1]}) // 2"
        whole = ", ".join(texts) + "," * (len(texts) == 1)
        lines.append(f"        torch.empty(({whole}), dtype=torch.{dtype}, device=given[0].device),")
    return "\n".join([f"def {ALLOCATION}(given):", "    return (", *lines, "    )"])


def _given(definition: Definition, arguments: tuple[inputs.Spec, ...]) -> dict[str, str]:
    """The axes that are no constants and that stand by themselves in an input's shape, as an expression."""
    found: dict[str, str] = {}
    for place, spec in enumerate(one for one in arguments if one.shape is not None):
        is_packed = inputs.allocated(spec)[0] != spec.shape
        axes = [str(one) for one in definition.inputs[spec.name]["shape"]]
        for at, axis in enumerate(axes):
            if definition.axes.get(axis, {"type": "const"})["type"] != "const":
                size = f"given[{place}].shape[{at}]"
                found.setdefault(axis, f"2 * {size}" if is_packed and at + 1 == len(axes) else size)
    return found


_ORDERED = '''
def _ordered_outputs(value):
    """One output as a tensor, several as a tuple in the order of the definition."""
    names = {names}
    if isinstance(value, dict):
        lost = [name for name in names if name not in value]
        if lost:
            raise ValueError(f"outputs returned: {{list(value)}}, and the definition has {{names}}")
        value = [value[name] for name in names]
    if not isinstance(value, (tuple, list)):
        value = [value]
    if len(value) != len(names):
        raise ValueError(f"outputs returned: {{len(value)}}, and the definition has {{names}}")
    return tuple(value) if len(value) > 1 else value[0]
'''


def _draws(
    definition: Definition,
    workload: Workload,
    arguments: tuple[inputs.Spec, ...],
    sizes: Mapping[str, int],
    precision: Precision,
) -> str:
    """The source's `get_inputs`."""
    by = workload.values["inputs"]
    # Beside the inputs, the definition's own function draws what a workload may name too.
    made = [name for name, raw in by.items() if definition.draws and raw == {"type": "custom"}]
    unknown = [name for name in by if name not in definition.inputs and name not in made]
    if unknown:
        raise fault(
            f"{workload.where}, inputs.{unknown[0]}",
            f"{definition.path} has no such input",
            f"It has {', '.join(definition.inputs)}",
        )
    lines = []
    for spec in arguments:
        expression = _drawn(definition, workload, spec, precision)
        lines.append(f"        {expression},  # {' '.join(spec.name.split())}")
    given = {name: raw["value"] for name, raw in by.items() if raw.get("type") == "scalar"}
    custom = [name for name, raw in by.items() if raw.get("type") == "custom"]
    first = ""
    if custom:
        named = _own_names(definition).get(definition.draws, definition.draws)
        first = f"    drawn = {named}({ ({**sizes, **given})!r}, torch.empty(0).device)\n"
    return f"def get_inputs():\n{first}    return [\n" + "\n".join(lines) + "\n    ]"


def _drawn(definition: Definition, workload: Workload, spec: inputs.Spec, precision: Precision) -> str:
    raw = workload.values["inputs"].get(spec.name, {"type": "random"})
    where = f"{workload.where}, inputs.{spec.name}"
    if not isinstance(raw, dict):
        raise fault(where, f"{json.dumps(raw)[:40]}", 'It is an object, such as {"type": "random"}')
    kind = raw.get("type")
    match kind:
        case "scalar":
            value = inputs.scalar(raw.get("value")) if spec.shape is None else ""
            if not value:
                seen = json.dumps(raw.get("value", "no value"))[:40]
                raise fault(
                    where,
                    f"{seen} for {spec.dtype} of shape {spec.shape}",
                    "A scalar is a finite number, and its shape is null",
                )
            return value
        case "random" if spec.shape is None:
            return repr(inputs.number(spec, workload.name))
        case "random":
            return inputs.drawn(
                spec,
                precision,
                named=definition.format == "SOL-ExecBench",
                probabilities=definition.operation == "sampling" and spec.name == "probs",
            )
        case "custom":
            if not definition.draws:
                raise fault(where, "custom, and the definition names no custom_inputs_entrypoint", "Add it")
            value = f"drawn[{spec.name!r}]"
            return value if spec.shape is None else inputs.packed(spec, value, precision)
        case "safetensors":
            path = _stored_at(definition, raw, where)
            key = raw.get("tensor_key", spec.name)
            return inputs.stored(spec, safetensors.read(path, str(key)), precision, path)
    raise fault(f"{where}.type", seen_in(raw, "type"), "Allowed: random, scalar, safetensors, custom")


def _stored_at(definition: Definition, raw: Mapping[str, Any], where: str) -> Path:
    """The file: relative to a root, where leading folders of its path may be those of the root itself."""
    if not isinstance(raw.get("path"), str) or not raw["path"]:
        raise fault(f"{where}.path", seen_in(raw, "path"), "It is the path of a safetensors file")
    named = Path(raw["path"])
    parts = named.parts
    for root in definition.roots:
        for start in range(len(parts)):
            if (found := root.joinpath(*parts[start:])).is_file():
                return found
    raise fault(
        f"{where}.path",
        f"no file {named} under {definition.roots[0]}",
        "Put the benchmark's files there; they come with its data set",
    )
