"""The files as which CUDA-L1, KernelBenchLeaderboard and AdaExplore have published their kernels.

What is read of each was found in its repository in 2026: names of files and fields, no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kbopt.core.errors import UserError
from kbopt.tasks.formats.model import fault, text_of
from kbopt.tasks.published import folders
from kbopt.tasks.published.model import Broken, Empty, Entry, Tasks, claim_of, json_lines, published

CUDA_L1_FIELDS = ("level_id", "task_id", "ref_code", "custom_code")
LEADERBOARD_FIELDS = ("problem_id", "level", "code", "torch_speedup")
LEADERBOARD_DEVICE = "L40S"
"""On which all of its kernels were timed, as its page's title says."""
_LEADERBOARD_PLACES = ("raw_data.json", "docs/assets/raw_data.json")
_ADAEXPLORE_PLACES = ("", "kernelbench", "results/saved_kernels/kernelbench")
_METRICS = re.compile(r"metrics_level(\d+)\.json")


def cuda_l1_files(path: Path) -> list[Path]:
    """CUDA-L1's files at the path, which may be its checkout: a file for each device, a line each kernel."""
    if path.is_file():
        return [path] if _has_lines_with(path, CUDA_L1_FIELDS) else []
    places = (path, path / "optimized_cuda_code")
    files = [file for place in places for ending in ("json", "jsonl") for file in place.glob(f"*.{ending}")]
    return [file for file in sorted(files) if _has_lines_with(file, CUDA_L1_FIELDS)]


def read_cuda_l1(path: Path, tasks: Tasks) -> Iterator[Entry]:
    """Each line has its own reference. A line whose `custom_code` is null, or says so, has no kernel."""
    files = cuda_l1_files(path)
    for file in files:
        for where, value in json_lines(file):
            name = where
            try:
                if isinstance(value, UserError):
                    raise value
                problem = f"level{value.get('level_id')}/{value.get('task_id')}"
                name = f"{file.stem}/{problem}" if len(files) > 1 else problem
                if value.get("custom_code") in (None, "None", ""):
                    yield Empty(name=name, where=where)
                    continue
                task = tasks.of_text(value.get("ref_code"), problem, where)
                claim = claim_of(value.get("score_default"), where, file.stem)
                yield published(name, where, task, value["custom_code"], claim, own_reference=True)
            except UserError as error:
                yield Broken(name=name, where=where, reason=str(error))


def leaderboard_file(path: Path) -> Path | None:
    """KernelBenchLeaderboard's file at the path, which may be its checkout: one list of objects."""
    files = [path] if path.is_file() else [path / place for place in _LEADERBOARD_PLACES]
    return next((file for file in files if file.is_file() and _is_leaderboard(file)), None)


def _is_leaderboard(file: Path) -> bool:
    start = text_of(file)[:200_000].lstrip()
    return start.startswith("[") and all(f'"{field}"' in start for field in LEADERBOARD_FIELDS)


def read_leaderboard(path: Path, tasks: Tasks) -> Iterator[Entry]:
    """`problem_id` counts the problems of a level from 0: the entry with 18 is KernelBench's problem 19.

    The checkout has the problems as they were when its kernels were made, and those are taken. Where the file
    lies alone they are those of the checkout of KernelBench.
    """
    file = leaderboard_file(path)
    assert file is not None, "the format was recognised before"
    try:
        values = json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise fault(file, f"no JSON, {error}", "It is one list of objects") from None
    for number, value in enumerate(values):
        where = f"{file}[{number}]"
        name = where
        try:
            if not isinstance(value, dict) or not isinstance(value.get("problem_id"), int):
                raise fault(where, "no problem's number", f"It has {', '.join(LEADERBOARD_FIELDS)}")
            problem = f"level{value.get('level')}/{value['problem_id'] + 1}"
            name = f"{problem} {value.get('display_name', '')}".strip()
            if value.get("code") is None:
                yield Empty(name=name, where=where)
                continue
            claim = claim_of(value.get("torch_speedup"), where, LEADERBOARD_DEVICE)
            own = file.parent / "problems" / f"l{value.get('level')}_p{value['problem_id'] + 1}.py"
            has_own = own.is_file()
            task = tasks.of_text(text_of(own), problem, str(own)) if has_own else tasks.named(problem)
            yield published(name, where, task, value["code"], claim, own_reference=has_own)
        except UserError as error:
            yield Broken(name=name, where=where, reason=str(error))


def adaexplore_folder(path: Path) -> Path | None:
    """AdaExplore's folder at the path, which may be its checkout: metrics beside `levelN/ID.py`."""
    if not path.is_dir():
        return None
    places = [path / place for place in _ADAEXPLORE_PLACES]
    return next((place for place in places if any(place.glob("metrics_level*.json"))), None)


def read_adaexplore(path: Path, tasks: Tasks) -> Iterator[Entry]:
    """A claim is the speedup over a baseline timed in the same process, else over the recorded one."""
    folder = adaexplore_folder(path)
    assert folder is not None, "the format was recognised before"
    levels = [(file, found[1]) for file in folder.iterdir() if (found := _METRICS.fullmatch(file.name))]
    for file, level in sorted(levels, key=lambda pair: int(pair[1])):
        try:
            metrics = json.loads(text_of(file))
            problems, device = metrics["problems"], str(metrics.get("_hardware", ""))
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise fault(file, f"no object with problems, {error}", "Restore the file") from None
        for index, values in problems.items():
            kernel = folder / f"level{level}" / f"{index}.py"
            name = folders.name_of(kernel, folder)
            if not kernel.is_file():
                yield Empty(name=name, where=str(kernel))
                continue
            try:
                claim = claim_of(_fast_p(values), f"{file}, {index}", device)
            except UserError as error:
                yield Broken(name=name, where=str(kernel), reason=str(error))
                continue
            yield folders.entry(kernel, folder, tasks, claim)


def _fast_p(values: Mapping[str, Any]) -> object:
    for baseline in ("measured_baseline", "recorded_baseline"):
        try:
            return values[baseline]["runtime_stats"]["fast_p"]
        except (TypeError, KeyError):
            continue
    return None


def _has_lines_with(file: Path, fields: tuple[str, ...]) -> bool:
    """Whether the first line that is a JSON object has all of the fields."""
    try:
        first = next((value for _, value in json_lines(file) if isinstance(value, dict)), {})
        return all(field in first for field in fields)
    except UserError:
        return False
