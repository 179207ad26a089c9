"""Sets of kernels that others have published: read from a folder or a file that the user has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kbopt.core.errors import UserError
from kbopt.tasks.formats.model import MAX_FILE_BYTES
from kbopt.tasks.published import folders, lines, releases, solutions
from kbopt.tasks.published.model import Broken, Claim, Empty, Entry, Published, Tasks, json_lines

__all__ = ["Broken", "Claim", "Empty", "Entry", "Form", "Published", "PublishedSet", "read_set"]

Form = Literal["auto", "jsonl", "pairs", "cuda-l1", "leaderboard", "adaexplore", "solutions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """A set's entries in its order, under names of which no two are the same."""

    form: Form
    entries: tuple[Entry, ...]


_TOLD = """\
  jsonl        JSON lines: kernel, source or file, with reference or task, and perhaps id and claim
  pairs        folders of reference.py and kernels, level1/19.py, or level_1_problem_19_sample_0_kernel.py;
               task folders of KernelBench-Hard or GPU MODE with their submission.py or solutions/
  cuda-l1      CUDA-L1's optimized_cuda_code/*.json
  leaderboard  KernelBenchLeaderboard's docs/assets/raw_data.json
  adaexplore   AdaExplore's results/saved_kernels/kernelbench
  solutions    solutions in JSON of SOL-ExecBench or FlashInfer-Bench, with their definitions"""


def _is_lines(path: Path) -> bool:
    """Whether a line of the file, or of a `.jsonl` file in the folder, has a kernel and a task.

    A `.jsonl` file is taken for one as well: its lines are then named with what they lack.
    """
    if path.is_dir():
        return any(_is_lines(file) for file in path.glob("*.jsonl"))
    if path.suffix == ".jsonl":
        return True
    try:
        return path.suffix in (".json", ".ndjson") and any(
            isinstance(value, dict) and lines.is_line(value) for _, value in json_lines(path)
        )
    except UserError:
        return False


_Reader = Callable[[Path, Tasks], Iterator[Entry]]
_READERS: dict[Form, tuple[Callable[[Path], bool], _Reader]] = {
    "leaderboard": (lambda path: releases.leaderboard_file(path) is not None, releases.read_leaderboard),
    "cuda-l1": (lambda path: bool(releases.cuda_l1_files(path)), releases.read_cuda_l1),
    "adaexplore": (lambda path: releases.adaexplore_folder(path) is not None, releases.read_adaexplore),
    "jsonl": (_is_lines, lines.read),
    "solutions": (lambda path: bool(solutions.files(path)), solutions.read),
    "pairs": (lambda path: path.is_dir() and folders.is_pairs(path), folders.read),
}
"""How each format is told and read. The first that fits is taken: the ones of one publisher come first."""


def read_set(path: Path, form: Form, kernelbench: Path | None) -> PublishedSet:
    """The set at `path`. Entries that cannot be judged are among the others, with the reason.

    Raises `UserError` for a path that is not there, of none of the formats, or of another than `form`, and
    for a set without entries.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder. Give the set's file or folder.")
    if (path.is_dir() and not any(path.iterdir())) or (path.is_file() and not path.stat().st_size):
        raise UserError(f"{path} is empty: there is no kernel to judge. Give the set's file or folder.")
    asked = [form] if form != "auto" else list(_READERS)
    found = next((one for one in asked if _READERS[one][0](path)), None)
    if found is None:
        expected = "none of the formats" if form == "auto" else f"no set in the format {form}"
        raise UserError(f"{path} is {expected}: it is {_seen(path)}. The formats are\n{_TOLD}")
    entries = tuple(_told_apart(_READERS[found][1](path, Tasks(kernelbench))))
    if not entries:
        raise UserError(f"{path} has no entries in the format {found}: there is no kernel to judge.")
    return PublishedSet(form=found, entries=entries)


def _seen(path: Path) -> str:
    if path.is_file():
        size = path.stat().st_size
        large = f", larger than the {MAX_FILE_BYTES >> 20} MiB that are read" if size > MAX_FILE_BYTES else ""
        return f"a {path.suffix or 'nameless'} file of {size:,} bytes{large}"
    endings = Counter(file.suffix or "no ending" for file in path.rglob("*") if file.is_file())
    told = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
    return f"a folder with the files {told}" if told else "a folder without files"


def _told_apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The second entry of one name is `name (2)`, and so on."""
    times: Counter[str] = Counter()
    for entry in entries:
        times[entry.name] += 1
        count = times[entry.name]
        yield entry if count == 1 else replace(entry, name=f"{entry.name} ({count})")
