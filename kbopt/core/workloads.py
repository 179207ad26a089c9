"""The workloads of a task: on which sizes and types it is judged, and who knows of them.

`get_workloads()` of a task's source returns a list of dictionaries that is written out there, so that it can
be read without running anything:

    def get_workloads():
        return [
            {"name": "square", "args": {"rows": 1024, "columns": 1024}, "weight": 2.0},
            {"name": "wide", "args": {"rows": 64, "columns": 16384}, "role": "hidden"},
            {"name": "ragged", "args": {"rows": 1000, "columns": 1003}, "role": "held_out"},
        ]

Without it a task has one workload, which is what `get_inputs()` draws.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from kbopt.core.errors import UNPARSABLE, UserError, unknown_name

Role = Literal["shown", "hidden", "held_out"]
"""Shown to proposers; unknown to them and judged all the same; or judged for the final verdict alone."""

FUNCTION = "get_workloads"
MOST = 64
"""Workloads of a task: the field's tasks have up to 48, and each has to be timed."""
_FIELDS = ("name", "args", "role", "weight")
LEAST_WEIGHT = 1e-6
_WEIGHTS = (LEAST_WEIGHT, 1e6)
"""Least and largest: sums of any number of them stay finite."""
DRAWS_ONE = "get_inputs_of_{}"
"""A function of this name at the top level draws the one workload whose args are `{"workload": N}`, and goes
with it where that workload may not be seen."""
_MOST_VALUES = 10_000
"""In one plain value: YAML can name a list of lists several times, which written out has no end."""
_INTEGERS = 2**64
_NAME = re.compile(r"[A-Za-z0-9_.=-]{1,80}")
RESERVED = ("shown", "all")
"""What --workloads takes beside names."""
_FORM = (
    "write it out: a function without arguments that is one `return [...]` of dictionaries with name, args, "
    "role and weight, as docs/writing-a-task.md shows"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`arguments` are keyword arguments of `get_inputs`, plain values. `weight` is relative to that of the
    others in the mean of times. The name is empty for the only workload of a task that names none.
    """

    name: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)
    role: Role = "shown"
    weight: float = 1.0

    @property
    def where(self) -> str:
        """Begins a message about it: empty for a task's only one."""
        return f"on workload {self.name}: " if self.name else ""


def workloads_of(source: str, where: str = "the task") -> tuple[Workload, ...]:
    """In the order of the source, one at the least. Raises UserError, which names `where` and the field."""
    function = _function(source)
    others = [line for line in _lines_naming(source) if function is None or line != function.lineno]
    if others:
        raise UserError(
            f"{where}, line {others[0]} binds {FUNCTION} in another way: {_FORM}, at the top level"
        )
    if function is None:
        return (Workload(),)
    said = f"{where}, {FUNCTION}() in line {function.lineno}"
    if _takes_arguments(function):
        raise UserError(f"{said} takes arguments: {_FORM}")
    entries = _literal(function, said)
    found = tuple(_workload(entry, f"{said}: entry {number}") for number, entry in enumerate(entries, 1))
    if not 1 <= len(found) <= MOST:
        raise UserError(f"{said} has {len(found)} workloads; 1 to {MOST} are allowed")
    names = [workload.name for workload in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{said}: the name {twice[0]} is given twice; give each workload a name of its own")
    if all(workload.role != "shown" for workload in found):
        raise UserError(f"{said} shows no workload: give at least one the role shown, the default")
    arguments = set(found[0].arguments)
    for workload in found[1:]:
        if set(workload.arguments) != arguments:
            apart = ", ".join(sorted(arguments ^ set(workload.arguments)))
            raise UserError(
                f"{said}: the args of {found[0].name} and {workload.name} differ in {apart}; give every "
                "workload the same arguments"
            )
    return found


def is_plain(value: object) -> bool:
    """Whether the value can be written into a source and is the same when read there: a finite number, text,
    a truth value, None, or a list, tuple or dict of them.
    """
    left, num = [value], 0
    while left:
        one = left.pop()
        num += 1
        if num > _MOST_VALUES:
            return False
        match one:
            case list() | tuple():
                left += one
            case dict():
                left += [*one.keys(), *one.values()]
            case None | bool() | str():
                pass
            case int():
                if abs(one) > _INTEGERS:
                    return False
            case float():
                if not math.isfinite(one):
                    return False
            case _:
                return False
    return True


def judged_of(workloads: Sequence[Workload], *, held_out: bool) -> tuple[Workload, ...]:
    """Those that a verdict is about, in their order: the final one's include what is `held_out`."""
    return tuple(workload for workload in workloads if held_out or workload.role != "held_out")


def shown_source(source: str) -> str:
    """`source` as proposers and candidates may see it: without the workloads that are not shown."""
    if _function(source) is None:
        return source
    return _with(source, [workload for workload in workloads_of(source) if workload.role == "shown"])


def selected(source: str, selection: str, where: str) -> str:
    """The task with those workloads alone that `--workloads` names: `shown`, `all`, which judges those that
    are held out like the hidden ones, or names with commas between them, which are then shown. Raises
    UserError.
    """
    found = workloads_of(source, where)
    if found == (Workload(),):
        if selection in ("shown", "all"):
            return source
        raise UserError(f"--workloads {selection}: {where} names no workloads; leave the option out")
    if selection == "shown":
        chosen = [workload for workload in found if workload.role == "shown"]
    elif selection == "all":
        chosen = [replace(w, role="hidden" if w.role == "held_out" else w.role) for w in found]
    else:
        by_name = {workload.name: workload for workload in found}
        chosen = []
        for name in dict.fromkeys(part.strip() for part in selection.split(",")):
            if name not in by_name:
                raise unknown_name(f"workload in --workloads, of {where},", name, ("shown", "all", *by_name))
            chosen.append(replace(by_name[name], role="shown"))
    return _with(source, chosen)


def written(workloads: Sequence[Workload]) -> str:
    """`get_workloads()` that returns these."""
    entries = (_entry(workload) for workload in workloads)
    return "\n".join([f"def {FUNCTION}():", "    return [", *(f"        {e!r}," for e in entries), "    ]"])


def _entry(workload: Workload) -> dict[str, object]:
    entry: dict[str, object] = {"name": workload.name, "args": dict(workload.arguments)}
    if workload.role != "shown":
        entry["role"] = workload.role
    if workload.weight != 1.0:
        entry["weight"] = workload.weight
    return entry


def _with(source: str, workloads: Sequence[Workload]) -> str:
    """`source` with these in place of its own, without the functions that draw others alone."""
    kept = {workload.name for workload in workloads}
    gone = {_drawing(workload) for workload in workloads_of(source) if workload.name not in kept}
    lines = source.split("\n")
    for node in reversed([one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef)]):
        assert node.end_lineno is not None
        if node.name == FUNCTION:
            lines[node.lineno - 1 : node.end_lineno] = [written(workloads)]
        elif node.name in gone:
            begin, end = min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno
            while lines[end : end + 1] == [""]:
                end += 1
            del lines[begin - 1 : end]
    return "\n".join(lines).rstrip("\n") + "\n"


def _drawing(workload: Workload) -> str:
    """The name of the function that draws this workload alone; empty where its args say of none."""
    number = workload.arguments.get("workload")
    return DRAWS_ONE.format(number) if type(number) is int and len(workload.arguments) == 1 else ""


def _function(source: str) -> ast.FunctionDef | None:
    try:
        module = ast.parse(source)
    except UNPARSABLE:
        return None
    found = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    return found[0] if found else None


def _lines_naming(source: str) -> list[int]:
    """The lines that bind the name in any way: what is not read would show proposers all workloads."""
    try:
        left: list[ast.AST] = list(ast.parse(source).body)
    except UNPARSABLE:
        return []
    found: list[int] = []
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound = {name}  # What its body binds is its own.
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound = {alias.asname or alias.name for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store()):
                bound = {name}
            case _:
                left += ast.iter_child_nodes(node)
                continue
        if FUNCTION in bound:
            found.append(node.lineno)
    return sorted(found)


def _takes_arguments(function: ast.FunctionDef) -> bool:
    said = function.args
    return bool(said.posonlyargs or said.args or said.kwonlyargs or said.vararg or said.kwarg)


def _literal(function: ast.FunctionDef, said: str) -> list[object]:
    body = [node for node in function.body if not isinstance(node, ast.Expr)]
    if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        raise UserError(f"{said} is no list that is written out: {_FORM}")
    try:
        value = ast.literal_eval(body[0].value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise UserError(f"{said} holds more than plain values: {_FORM}; a dtype is its name") from None
    if not isinstance(value, list):
        raise UserError(f"{said} returns a {type(value).__name__}, not a list: {_FORM}")
    return value


def _workload(entry: object, said: str) -> Workload:
    if not isinstance(entry, dict):
        raise UserError(f"{said} is a {type(entry).__name__}; it has to be a dictionary with name and args")
    unknown = sorted(str(key) for key in entry if key not in _FIELDS)
    if unknown:
        raise unknown_name(f"field in {said},", unknown[0], _FIELDS)
    name, arguments = entry.get("name"), entry.get("args", {})
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise UserError(
            f"{said}: name is {name!r}; it has to be 1 to 80 letters, digits and any of _.=-, and neither "
            "shown nor all"
        )
    if not isinstance(arguments, dict) or not all(isinstance(k, str) and k.isidentifier() for k in arguments):
        raise UserError(f"{said}: args is {arguments!r}; it has to be a dictionary of get_inputs' arguments")
    odd = [key for key, value in arguments.items() if not is_plain(value)]
    if odd:
        raise UserError(
            f"{said}: {odd[0]} of args is {arguments[odd[0]]!r:.60}; allowed are finite numbers, text, True, "
            "False, None, and lists, tuples and dictionaries of them"
        )
    role, weight = entry.get("role", "shown"), entry.get("weight", 1.0)
    if role not in get_args(Role):
        raise unknown_name(f"role in {said},", str(role), get_args(Role))
    least, most = _WEIGHTS
    if type(weight) not in (int, float) or not least <= weight <= most:
        raise UserError(
            f"{said}: weight is {weight!r:.60}; it has to be a number above zero, from {least:g} to {most:g}"
        )
    return Workload(name=name, arguments=arguments, role=role, weight=float(weight))
