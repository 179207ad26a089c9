"""SOL-ExecBench and FlashInfer-Bench: a definition in JSON with a function `run`, and workloads as lines.

The two share one schema. SOL-ExecBench has `definition.json` beside `workload.jsonl`; a FlashInfer-Bench data
set has `definitions/**/NAME.json`, and its workloads as traces in `workloads/**` (else `traces/**`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from kbopt.tasks.formats import templates
from kbopt.tasks.formats.definition_source import Definition, expect, source
from kbopt.tasks.formats.model import FormatTask, Workload, fault, json_object, text_of, title_in

_DEFINITION = re.compile(r'"definition"\s*:\s*"([^"\\]+)"')
_NUM_PARENTS = 4
"""Folders above a definition where the files of its workloads are looked for."""


def read_folder(folder: Path, name: str) -> tuple[FormatTask, ...]:
    """The task of a folder with `definition.json` and `workload.jsonl`. Raises `UserError`."""
    definition = _read(
        folder / "definition.json", "SOL-ExecBench", (folder, *folder.resolve().parents[:_NUM_PARENTS])
    )
    return (_task(definition, name, [folder / "workload.jsonl"]),)


def read_traces(root: Path, name: str) -> tuple[FormatTask, ...]:
    """The tasks of a FlashInfer-Bench data set, those of its definitions that have workloads.

    Raises `UserError` where none has.
    """
    paths, lines = sorted((root / "definitions").rglob("*.json")), _lines_by_definition(root)
    found = [_read(path, "FlashInfer-Bench", (root,)) for path in paths if _named(path) in lines]
    if not found:
        told = ", ".join(sorted(lines)[:8]) or "none"
        raise fault(
            name,
            f"{len(paths)} definitions, and no workloads of theirs; those that are there are for {told}",
            "A FlashInfer-Bench data set has definitions/**/NAME.json, and workloads/**/NAME.jsonl with the "
            "name of a definition in each line",
        )
    return tuple(
        _task(definition, str(definition.path) if len(found) > 1 else name, lines[definition.name])
        for definition in found
    )


def _named(path: Path) -> str:
    """The name of the definition in the file; that of the file where it cannot be read."""
    with suppress(ValueError, RecursionError, TypeError, KeyError):
        return str(json.loads(text_of(path))["name"])
    return path.stem


def read_file(path: Path, name: str) -> tuple[FormatTask, ...]:
    """The task of one definition of a FlashInfer-Bench data set. Raises `UserError`."""
    root = next((folder.parent for folder in path.parents if folder.name == "definitions"), None)
    if root is None:
        raise fault(
            path,
            "a definition in no folder `definitions`",
            "Give a folder with definition.json and workload.jsonl, or a file in a FlashInfer-Bench data set",
        )
    definition = _read(path, "FlashInfer-Bench", (root,))
    lines = _lines_by_definition(root).get(definition.name)
    if not lines:
        raise fault(
            path,
            f"no file in workloads or traces of {root} is for {definition.name}",
            f"Add workloads/{definition.name}.jsonl",
        )
    return (_task(definition, name, lines),)


def _lines_by_definition(root: Path) -> dict[str, list[Path]]:
    """The files with workloads of each definition; where it has none, its traces, which name some too."""
    found: dict[str, list[Path]] = {}
    for folder in ("traces", "workloads"):
        here: dict[str, list[Path]] = {}
        for path in sorted((root / folder).rglob("*.jsonl")):
            for name in sorted(set(_DEFINITION.findall(text_of(path)))):
                here.setdefault(name, []).append(path)
        found |= here
    return found


def _read(path: Path, format_name: str, roots: tuple[Path, ...]) -> Definition:
    raw = json_object(text_of(path), path, "A definition is one JSON object")
    kinds: dict[str, type] = {"name": str, "axes": dict, "inputs": dict, "outputs": dict, "reference": str}
    for field, kind in kinds.items():
        expect(raw, field, kind, path)
    for field in ("axes", "inputs", "outputs"):
        for key in raw[field]:
            expect(raw[field], key, dict, f"{path}, {field}")
    if not raw["outputs"] or not raw["inputs"]:
        raise fault(f"{path}, inputs and outputs", "one of them is empty", "Name at least one of each")
    return Definition(
        path=path,
        format=format_name,
        name=raw["name"],
        title=title_in(raw.get("description"), raw["name"]),
        axes=raw["axes"],
        inputs=raw["inputs"],
        outputs=raw["outputs"],
        reference=_checked(raw, path),
        draws=raw.get("custom_inputs_entrypoint") or "",
        operation=str(raw.get("op_type") or raw.get("type") or ""),
        roots=roots,
    )


def _checked(raw: Mapping[str, Any], path: Path) -> str:
    """The reference, which defines what the other fields say of it."""
    where = f"{path}, reference"
    functions = templates.functions(templates.parsed(raw["reference"], where))
    run, draws = functions.get("run"), raw.get("custom_inputs_entrypoint")
    if draws is not None:
        expect(raw, "custom_inputs_entrypoint", str, path)
    if run is None:
        raise fault(where, "it defines no function run", "Its arguments are the inputs, in their order")
    if draws and draws not in functions:
        raise fault(f"{path}, custom_inputs_entrypoint", f"reference defines no {draws!r}", "Define it there")
    taken, needed = len(run.args.posonlyargs + run.args.args), len(raw["inputs"])
    fewest = taken - len(run.args.defaults)
    if not (fewest <= needed and (needed <= taken or run.args.vararg)):
        raise fault(where, f"run takes {taken} arguments, and there are {needed} inputs", "Make them agree")
    return str(raw["reference"])


def _task(definition: Definition, name: str, files: list[Path]) -> FormatTask:
    workloads: dict[str, Workload] = {}
    numbers = count()
    for file in files:
        for workload in _workloads(definition, file, numbers):
            other = workloads.get(workload.name)
            if other is None:
                workloads[workload.name] = workload
            elif (other.values["axes"], other.values["inputs"]) != (
                workload.values["axes"],
                workload.values["inputs"],
            ):
                raise fault(
                    workload.where,
                    f"its uuid {workload.name} is that of {other.where}, which differs",
                    "Give each workload a uuid of its own",
                )
    if not workloads:
        raise fault(
            ", ".join(map(str, files)), "no workload", f"Add one of {definition.name}, a line of JSON"
        )
    return FormatTask(
        path=name,
        format=definition.format,
        title=definition.title,
        workloads=tuple(workloads.values()),
        make_source=partial(source, definition),
    )


def _workloads(definition: Definition, file: Path, numbers: Iterator[int]) -> Iterator[Workload]:
    """Those of the file that belong to the definition. A trace has its workload inside."""
    for number, line in enumerate(text_of(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        raw = json_object(line, where, "A workload is one line with one JSON object")
        if raw.get("definition", definition.name) != definition.name:
            continue
        values = raw.get("workload", raw)
        if not isinstance(values, dict):
            raise fault(f"{where}, workload", f"{json.dumps(values)[:40]}", "It is an object")
        expect(values, "axes", dict, where)
        values = {"inputs": {}, **values}
        expect(values, "inputs", dict, where)
        uuid = values.get("uuid")
        if not isinstance(uuid, str | int | None):
            raise fault(f"{where}, uuid", f"{json.dumps(uuid)[:40]}", "It is a string")
        name = " ".join(str(uuid or "").split()) or f"workload{next(numbers)}"
        sizes = " ".join(f"{axis}={size}" for axis, size in values["axes"].items())
        yield Workload(name=name, text=sizes, where=where, values=values)
