"""GPU MODE: `reference.py` with `generate_input` and `ref_kernel`, and `task.yml` with tests and benchmarks.

Neither is run. The files that `task.yml` names are read for what the reference imports of them. A kernel gets
what `generate_input` returns, in one argument.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kbopt.core.workloads import is_plain
from kbopt.tasks.formats import modules, templates
from kbopt.tasks.formats.model import FormatTask, Workload, fault, kind_of, text_of, title_in

NAME = "GPU MODE"
_BENCHMARK, _TEST = "benchmark", "test"
"""They begin the names of the workloads that are timed, and of those that are checked alone."""
CONVENTION: templates.Convention = "data"

_NO_REFERENCE = ("submission", "eval")
"""Modules that a reference does not import."""
_ALLOCATIONS = {
    "empty": "empty",
    "empty_like": "empty",
    "new_empty": "empty",
    "zeros": "zeros",
    "zeros_like": "zeros",
    "new_zeros": "zeros",
}
_VALUES = (bool, int, float, str, list, type(None))
"""What an argument of `generate_input` may be."""
_UNREADABLE = (RecursionError, ValueError, LookupError, AttributeError, TypeError)
"""What the YAML reader raises beside its own error, for a number of thousands of digits or a wrong tag."""
_KEPT = ("contiguous", "to", "cuda")
"""Calls after an allocation that leave it one."""


def read(folder: Path, name: str) -> tuple[FormatTask, ...]:
    """The task of a folder with `reference.py` and `task.yml`. Raises `UserError`."""
    path = folder / ("task.yml" if (folder / "task.yml").exists() else "task.yaml")
    raw = _yaml(path)
    if raw.get("lang", "py") != "py":
        raise fault(
            f"{path}, lang",
            kind_of(raw["lang"]) if raw["lang"] is None else f"{raw['lang']!r:.40}",
            "kbopt judges tasks with a reference in Python: py",
        )
    if raw.get("multi_gpu"):
        raise fault(f"{path}, multi_gpu", "true", "kbopt judges kernels on one GPU; take another task")
    texts = _texts(path, folder, raw)
    functions = templates.functions(templates.parsed(texts["reference"], folder / "reference.py"))
    missing = [one for one in ("generate_input", "ref_kernel") if one not in functions]
    if missing:
        raise fault(
            folder / "reference.py",
            f"it defines no {' and no '.join(missing)}",
            "A reference of GPU MODE has the functions generate_input and ref_kernel",
        )
    workloads = tuple(
        workload
        for field, label in (("benchmarks", _BENCHMARK), ("tests", _TEST))
        for workload in _workloads(path, raw, field, label)
    )
    if not workloads:
        raise fault(
            path, "neither benchmarks nor tests", 'Add one, as in benchmarks: [{"size": 1024, "seed": 1}]'
        )
    return (
        FormatTask(
            path=name,
            format=NAME,
            title=title_in(raw.get("description"), str(raw.get("name") or folder.resolve().name)),
            workloads=workloads,
            make_source=partial(_source, folder, texts, functions["generate_input"]),
        ),
    )


def is_test(format_name: str, workload: Workload) -> bool:
    """Whether it is a test of a GPU MODE task, whose time counts nothing there."""
    return format_name == NAME and workload.name.startswith(_TEST)


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(text_of(path))
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise fault(path, f"no YAML, {' '.join(str(error).split())}", "Mend it there") from None
    if not isinstance(raw, dict):
        raise fault(path, f"{kind_of(raw)} instead of fields", "It has tests, benchmarks and files")
    return raw


def _texts(path: Path, folder: Path, raw: Mapping[str, Any]) -> dict[str, str]:
    """The modules that the reference may import, by name."""
    files = raw.get("files")
    if files is None:
        files = [
            {"name": one, "source": one}
            for one in ("reference.py", "task.py", "utils.py")
            if (folder / one).exists()
        ]
    if not isinstance(files, list):
        raise fault(f"{path}, files", kind_of(files), "It is a list")
    texts: dict[str, str] = {}
    for number, file in enumerate(files):
        if not isinstance(file, dict) or not all(
            isinstance(file.get(key), str) for key in ("name", "source")
        ):
            raise fault(f"{path}, files[{number}]", f"{file!r}", 'It is {"name": ..., "source": ...}')
        module, dot, ending = file["name"].rpartition(".")
        if (dot, ending) != (".", "py") or module in _NO_REFERENCE or file["source"] == "@SUBMISSION@":
            continue
        source = folder / file["source"]
        if not source.is_file():
            raise fault(
                f"{path}, files[{number}].source", f"no file {source}", "Add it; the reference needs it"
            )
        texts[module] = text_of(source)
    if "reference" not in texts:
        texts["reference"] = text_of(folder / "reference.py")
    return texts


def _workloads(path: Path, raw: Mapping[str, Any], field: str, label: str) -> Iterator[Workload]:
    entries = raw.get(field) or []
    if not isinstance(entries, list):
        raise fault(f"{path}, {field}", kind_of(entries), "It is a list")
    for number, values in enumerate(entries):
        where = f"{path}, {field}[{number}]"
        if not isinstance(values, dict):
            raise fault(where, f"{values!r:.60}", "It is a map of generate_input's arguments")
        for key, value in values.items():
            if not isinstance(key, str) or not key.isidentifier() or keyword.iskeyword(key):
                raise fault(where, f"{key!r:.60}", "Its keys are names of generate_input's arguments")
            if not is_plain(value) or not isinstance(value, _VALUES):
                raise fault(
                    where,
                    f"{key} is {value!r:.40}",
                    "It is a map of generate_input's arguments: finite numbers, text, true, false, null, and "
                    "lists of them",
                )
        text = " ".join(
            f"{key}={str(value).replace(' ', '')}" for key, value in values.items() if key != "seed"
        )
        yield Workload(name=f"{label}{number}", text=text, where=where, values=values)


def _source(folder: Path, texts: Mapping[str, str], generate: ast.FunctionDef, workload: Workload) -> str:
    _check_arguments(generate, workload)
    joined = modules.joined(texts, "reference", folder, needed=("ref_kernel", "generate_input"))
    body = templates.without_reserved(joined)
    module, buffers = ast.parse(body), allocated(generate)
    precision = templates.named_precision(module)
    packs = bool(buffers) or templates.mixes(module)
    widens = bool({"float64", "double"} & templates.attributes(module))
    answer = f"ref_kernel({'_viewed_inputs(data)' if packs else 'data'})"
    call = ", ".join(
        "seed=seed" if key == "seed" else f"{key}={value!r}" for key, value in workload.values.items()
    )
    seed = workload.values.get("seed")
    # Small numbers, as in the tasks: some references add the seed to what they draw.
    drawn = (
        f"    seed = {seed!r} + torch.randint(2**16, (), device='cpu').item()\n"
        if "seed" in workload.values
        else ""
    )
    title = title_in(ast.get_docstring(templates.functions(module)["ref_kernel"]), folder.resolve().name)
    where = f"GPU MODE, {folder.resolve().name}, {workload.name}: {workload.text}"
    return templates.hoisted(
        templates.head(title, where, CONVENTION, precision),
        templates.torch_import(body),
        body,
        *((templates.BITS, templates.UNPACKED) if packs else ()),
        *((_NARROWED.format(dtype=templates.DTYPES[precision]),) if widens else ()),
        "class Model(torch.nn.Module):\n    def forward(self, data):\n"
        f"        return {f'_narrowed_outputs({answer}, data)' if widens else answer}",
        f"def get_inputs():\n{drawn}    data = generate_input({call})\n"
        + (_WITHOUT.format(buffers=buffers) if buffers else "")
        + (
            f"    return [_packed_inputs(data, torch.{templates.DTYPES[precision]})]"
            if packs
            else "    return [data]"
        ),
        "def get_init_inputs():\n    return []",
    )


_WITHOUT = """    # Memory for outputs is allocated in the call, so that what is returned is the kernel's own.
    memory = {buffers}
    data = tuple(
        {{memory[at]: one.new_empty((0, *one.shape))}} if at in memory else one
        for at, one in enumerate(data)
    )
"""


_NARROWED = """def _narrowed_outputs(value, data):
    # Some references answer in float64, where kernels answer in the precision of the task.
    from torch.utils._pytree import tree_leaves, tree_map_only

    dtypes = [one.dtype for one in tree_leaves(data) if isinstance(one, torch.Tensor)]
    if torch.float64 in dtypes:
        return value
    return tree_map_only(
        torch.Tensor, lambda one: one.to(torch.{dtype}) if one.dtype == torch.float64 else one, value
    )"""


def _check_arguments(generate: ast.FunctionDef, workload: Workload) -> None:
    known = [one.arg for one in (*generate.args.posonlyargs, *generate.args.args, *generate.args.kwonlyargs)]
    unknown = [key for key in workload.values if key not in known]
    if unknown and generate.args.kwarg is None:
        raise fault(
            f"{workload.where}.{unknown[0]}",
            "generate_input has no such argument",
            f"It has {', '.join(known) or 'none'}",
        )
    needed = known[: len(known) - len(generate.args.defaults) - len(generate.args.kwonlyargs)]
    lost = [name for name in needed if name not in workload.values]
    if lost:
        raise fault(f"{workload.where}.{lost[0]}", "generate_input needs this argument", "Add it there")


def allocated(generate: ast.FunctionDef) -> dict[int, str]:
    """The places in the tuple that `generate` returns which are only allocated there: `zeros` or `empty`.

    They are names that stand for an allocation, and that nothing else in the function mentions.
    """
    returned = [node.value for node in ast.walk(generate) if isinstance(node, ast.Return)]
    if len(returned) != 1 or not isinstance(returned[0], ast.Tuple):
        return {}
    uses = [node.id for node in ast.walk(generate) if isinstance(node, ast.Name)]
    made = {
        target.id: kind
        for node in ast.walk(generate)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and (kind := _allocation(node.value))
    }
    return {
        number: made[item.id]
        for number, item in enumerate(returned[0].elts)
        if isinstance(item, ast.Name) and item.id in made and uses.count(item.id) == 2
    }


def _allocation(node: ast.expr) -> str:
    """`empty` or `zeros` where the expression allocates memory, else nothing."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Call() as inner, attr=name)) if name in _KEPT:
            return _allocation(inner)
        case ast.Call(func=ast.Attribute(attr=name)):
            return _ALLOCATIONS.get(name, "")
    return ""
