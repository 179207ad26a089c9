"""What a task's source says about itself, read without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from kbopt.core.errors import UNPARSABLE, UserError, place_of
from kbopt.core.workloads import Workload, workloads_of

REQUIRED = ("Model", "get_inputs", "get_init_inputs")
"""What KernelBench's format asks a problem to define at its top level."""

_FAMILY = re.compile(r"^# family: *([\w/]+) *$", re.MULTILINE)


def family_of(source: str) -> str:
    """The family that a `# family: softmax` line names; empty where there is none."""
    found = _FAMILY.search(source)
    return found[1] if found else ""


def title_of(source: str) -> str:
    """The first line of the module's docstring, or of its `Model`'s; empty where there is none."""
    module = ast.parse(source)
    models = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Model")
    documented: tuple[ast.Module | ast.ClassDef, ...] = (module, *models)
    for node in documented:
        lines = (ast.get_docstring(node) or "").splitlines()
        if lines:
            return lines[0]
    return ""


def validate(source: str, where: str) -> None:
    """Raises `UserError` where `source` is not a problem in KernelBench's format; `where` names it. What its
    `get_workloads()` says is read as well.
    """
    try:
        module = ast.parse(source)
    except UNPARSABLE as error:
        raise UserError(f"{where}, {place_of(error)}. A task is a Python source.") from None
    missing = [name for name in REQUIRED if name not in _defined(module)]
    if missing:
        raise UserError(
            f"{where} defines no {', '.join(missing)}. A task in KernelBench's format defines a class Model "
            "and the functions get_inputs() and get_init_inputs()."
        )
    _check_arguments(module, workloads_of(source, where), where)


def _check_arguments(module: ast.Module, workloads: Sequence[Workload], where: str) -> None:
    """Raises `UserError` where the workloads' arguments are not those that `get_inputs` takes."""
    found = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "get_inputs"]
    if not found or found[-1].decorator_list:
        return
    said = found[-1].args
    known = [one.arg for one in (*said.args, *said.kwonlyargs)]
    needed = [one.arg for one in said.args[: len(said.args) - len(said.defaults)]]
    needed += [
        one.arg for one, default in zip(said.kwonlyargs, said.kw_defaults, strict=True) if default is None
    ]
    for workload in workloads:
        given = set(workload.arguments)
        unknown = sorted(given.difference(known)) if said.kwarg is None else []
        lost = [name for name in needed if name not in given]
        if unknown or lost:
            what = f"gives {unknown[0]}, which it does not take" if unknown else f"does not give {lost[0]}"
            entry = f"workload {workload.name}" if workload.name else "a task without get_workloads()"
            raise UserError(
                f"{where}: {entry} {what}. get_inputs in line {found[-1].lineno} takes "
                f"{', '.join(known) or 'no arguments'}; the args of get_workloads() have to agree with it"
            )


def _defined(module: ast.Module) -> set[str]:
    names = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
    return names
