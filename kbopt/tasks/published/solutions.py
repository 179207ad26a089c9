"""Solutions of SOL-ExecBench and FlashInfer-Bench as a set: JSON files, each for a definition beside it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from kbopt.core.errors import UserError
from kbopt.tasks import formats
from kbopt.tasks.formats.model import FormatTask, Workload, fault, json_object, text_of
from kbopt.tasks.published.folders import name_of
from kbopt.tasks.published.model import Broken, Claim, Entry, Tasks, claim_of, json_lines, published
from kbopt.tasks.solutions import is_solution

_NUM_PARENTS = 6
"""Folders above a solution where its data set is looked for: solutions/OPERATION/DEFINITION/AUTHOR/FILE."""


def files(path: Path) -> list[Path]:
    """The solutions at the path."""
    found = [path] if path.is_file() else sorted(path.rglob("*.json"))
    return [file for file in found if file.suffix == ".json" and _is_one(file)]


def _is_one(file: Path) -> bool:
    try:
        return is_solution(text_of(file))
    except UserError:
        return False


def read(path: Path, _: Tasks) -> Iterator[Entry]:
    """Each solution on one workload: the first that a trace of it gives a speedup for, else the first."""
    root = path if path.is_dir() else path.parent
    claims_of = functools.cache(_claims)
    for file in files(path):
        name = name_of(file, root)
        try:
            text = text_of(file)
            solution = json_object(text, file, "A solution is one JSON object")
            problem = formats.read(str(_definition(file, str(solution.get("definition", "")))))[0]
            data_set = _data_set(file)
            claims = claims_of(data_set) if data_set else {}
            workload, claim = _chosen(problem, str(solution.get("name", "")), claims)
            yield published(name, str(file), problem.task(workload), text, claim, file=file.name)
        except UserError as error:
            yield Broken(name=name, where=str(file), reason=str(error))


def _definition(file: Path, named: str) -> Path:
    """The definition of the solution: in its folder or one above, else in the data set's definitions."""
    for folder in list(file.parents)[:2]:
        if (folder / "definition.json").is_file():
            return folder / "definition.json"
    root = _data_set(file)
    found = sorted((root / "definitions").rglob(f"{named}.json")) if root and named else []
    if not found:
        raise fault(
            file,
            f"there is no definition {named or 'named in it'}",
            "Put definition.json beside it, or definitions/**/NAME.json above",
        )
    return found[0]


def _data_set(file: Path) -> Path | None:
    parents = list(file.resolve().parents)[:_NUM_PARENTS]
    return next((folder for folder in parents if (folder / "definitions").is_dir()), None)


def _claims(root: Path) -> dict[tuple[str, str], Claim]:
    """Speedups by solution and workload, as the data set's traces have them."""
    found: dict[tuple[str, str], Claim] = {}
    for file in sorted((root / "traces").rglob("*.jsonl")):
        for where, value in json_lines(file):
            try:
                key = str(value["solution"]), str(value["workload"]["uuid"])
                evaluation = value["evaluation"]
                device = str(evaluation.get("environment", {}).get("hardware", ""))
                claim = claim_of(evaluation["performance"]["speedup_factor"], where, device)
            except (TypeError, KeyError, AttributeError, UserError):
                continue  # a trace without a measurement claims nothing
            if claim:
                found.setdefault(key, claim)
    return found


def _chosen(
    problem: FormatTask, solution: str, claims: Mapping[tuple[str, str], Claim]
) -> tuple[Workload, Claim | None]:
    for workload in problem.workloads:
        if claim := claims.get((solution, workload.name)):
            return workload, claim
    return problem.workloads[0], None
