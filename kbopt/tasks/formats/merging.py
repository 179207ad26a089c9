"""Several workloads of a reference as one task, which a kernel has to be right on in all of them.

Their sources differ in what `get_inputs()` draws, and in the sizes that stand there. Those of the first are
the task's, to which the others add their own `get_inputs()`. The first is one that is shown: nothing of what
only the others have stays in the source that proposers see.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from kbopt.core import workloads as core
from kbopt.core.task import Task
from kbopt.tasks.formats import templates
from kbopt.tasks.formats.model import FormatTask, fault
from kbopt.tasks.formats.renaming import renamed
from kbopt.tasks.formats.roles import Part
from kbopt.tasks.source import family_of

_DRAWS = "get_inputs"
_MODEL = ("Model", "get_init_inputs")
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.=-]")
_ONE_BY_ONE = "Take them one by one, as {path}#NAME"


def merged(problem: FormatTask, chosen: Sequence[Part], name: str) -> Task:
    """The task called `name`. Raises `UserError` where a workload cannot be resolved, or is another model."""
    sources = [problem.make_source(part.workload) for part in chosen]
    if len({templates.precision_of(source) for source in sources}) > 1:
        raise fault(
            problem.path, "its workloads have several precisions", _ONE_BY_ONE.format(path=problem.path)
        )
    sizes = _sizes(problem, chosen, sources)
    parts = _by_sizes(problem, sources[0], sizes) if sizes else _by_functions(problem, sources)
    named = [
        core.Workload(
            name=named_so,
            arguments=sizes[number] if sizes else {"workload": number},
            role=part.role,
            weight=part.weight,
        )
        for number, (named_so, part) in enumerate(zip(_names(chosen), chosen, strict=True))
    ]
    source = "\n\n\n".join([*parts, core.written(named)]) + "\n"
    core.workloads_of(source, problem.path)
    return Task(name=name, source=source, family=family_of(source))


def _names(chosen: Sequence[Part]) -> list[str]:
    """A name for each as `get_workloads()` may have it, which tells it from the others."""
    found: list[str] = []
    for part in chosen:
        said = name = _UNUSUAL.sub("-", part.workload.name)[:80]
        number = 2
        while name in (*found, *core.RESERVED):
            name = f"{said[:75]}-{number}"
            number += 1
        found.append(name)
    return found


def _bindings(source: str) -> dict[str, ast.stmt]:
    """The statement of the source that binds each name last."""
    return {name: node for node in ast.parse(source).body for name in templates.bound(node)}


def _differing(sources: Sequence[str]) -> set[str]:
    """The names that not all sources that bind them bind to the same."""
    seen: dict[str, str] = {}
    found: set[str] = set()
    for source in sources:
        for name, node in _bindings(source).items():
            text = ast.dump(node)
            if seen.setdefault(name, text) != text:
                found.add(name)
    return found


def _sizes(problem: FormatTask, chosen: Sequence[Part], sources: Sequence[str]) -> list[dict[str, object]]:
    """The variables that tell the workloads apart, of each; none where `get_inputs()` does. Raises
    `UserError` where more than inputs depends on them.
    """
    differing = _differing(sources)
    if not differing or differing == {_DRAWS}:
        return []
    bindings = [_bindings(source) for source in sources]
    if not all(_is_literal(found.get(name)) for found in bindings for name in differing):
        told = ", ".join(sorted(differing))
        raise fault(problem.path, f"its workloads differ in {told}", _ONE_BY_ONE.format(path=problem.path))
    used = _reached(bindings[0], _MODEL) & differing
    if used:
        raise fault(
            f"{problem.path}, {chosen[0].workload.name}",
            f"its Model, or get_init_inputs(), depends on {', '.join(sorted(used))}, which differ between "
            "workloads: each is a model of its own",
            _ONE_BY_ONE.format(path=problem.path),
        )
    return [{name: _value(found[name]) for name in sorted(differing)} for found in bindings]


def _is_literal(node: ast.stmt | None) -> bool:
    if not isinstance(node, ast.Assign):
        return False
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError):
        return False
    return True


def _value(node: ast.stmt) -> object:
    assert isinstance(node, ast.Assign)
    return ast.literal_eval(node.value)


def _reached(bindings: Mapping[str, ast.stmt], names: Sequence[str]) -> set[str]:
    """All names that the statements of `names` mention, and those that these mention in turn."""
    found: set[str] = set()
    left = list(names)
    while left:
        node = bindings.get(left.pop())
        if node is None:
            continue
        mentioned = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - found
        found |= mentioned
        left += mentioned
    return found


def _by_sizes(problem: FormatTask, first: str, sizes: Sequence[Mapping[str, object]]) -> list[str]:
    """`get_inputs()` of the first, with the variables that it reads set to each workload's."""
    body = f"{_DRAWS}_of_sizes = {_DRAWS}\n\n\ndef {_DRAWS}(**sizes):\n"
    body += f"    globals().update(sizes)\n    return {_DRAWS}_of_sizes()"
    return [_headed(problem, first, len(sizes)), body]


def _by_functions(problem: FormatTask, sources: Sequence[str]) -> list[str]:
    """The function of each, and what it needs beside what the first source has."""
    known = set(_bindings(sources[0]))
    first = renamed(sources[0], {_DRAWS: core.DRAWS_ONE.format(0)})
    parts = [_headed(problem, first, len(sources))]
    for number, source in enumerate(sources[1:], 1):
        for name, node in _bindings(source).items():
            segment = ast.get_source_segment(source, node) or ""
            if name == _DRAWS:
                parts.append(renamed(segment, {_DRAWS: core.DRAWS_ONE.format(number)}))
            elif name not in known:
                parts.append(segment)
        known |= set(_bindings(source))
    name = core.DRAWS_ONE.format("{workload}")
    parts.append(f'def {_DRAWS}(workload=0):\n    return globals()[f"{name}"]()')
    return parts


def _headed(problem: FormatTask, source: str, num: int) -> str:
    """The source, which says in its head that it is from several workloads."""
    told = templates.one_line(f"# from {problem.format}, {problem.title}, {num} workloads")
    return re.sub(r"^# from .*$", lambda _: told, source, count=1, flags=re.MULTILINE).rstrip()
