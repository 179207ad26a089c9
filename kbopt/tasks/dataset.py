"""KernelBench's problems from its Hugging Face dataset, kept in the hub's own cache (`HF_HOME`).

The hub and its parquet reader are imported only when a problem is asked for.
"""

from __future__ import annotations

import functools
from pathlib import Path

from kbopt.core.errors import UserError
from kbopt.core.extras import require
from kbopt.core.text import ranges

REPOSITORY = "ScalingIntelligence/KernelBench"


def read_problem(level: int, index: int) -> str:
    """The source of the problem. Raises `UserError` where it does not exist or cannot be downloaded."""
    problems = _read_level(level)
    if index not in problems:
        raise UserError(
            f"no problem level{level}/{index} in the dataset {REPOSITORY}: "
            f"level {level} has the problems {ranges(numbers(level))}."
        )
    return problems[index]


def numbers(level: int) -> tuple[int, ...]:
    """Those of the level's problems, ascending. Raises `UserError` where they cannot be downloaded."""
    return tuple(sorted(_read_level(level)))


@functools.cache
def _read_level(level: int) -> dict[int, str]:
    """Each problem's number with its source."""
    require("kernelbench", f"level {level} of KernelBench from its Hugging Face dataset")
    import pyarrow.parquet as parquet

    problems: dict[int, str] = {}
    for path in sorted(_download(level).glob(f"data/level_{level}-*.parquet")):
        table = parquet.read_table(path, columns=["problem_id", "code"]).to_pydict()
        problems.update(zip(table["problem_id"], table["code"], strict=True))
    if not problems:
        raise UserError(f"the dataset {REPOSITORY} has no level {level}.")
    return problems


def _download(level: int) -> Path:
    """The folder of the dataset's snapshot, with the files of `level`; the cached one where it is offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            REPOSITORY, repo_type="dataset", allow_patterns=f"data/level_{level}-*.parquet"
        )
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot get level {level} of KernelBench. Either clone its repository and name the folder with "
            f"--kernelbench DIR or KBOPT_KERNELBENCH, or go online once so that the Hugging Face dataset "
            f"{REPOSITORY} can be downloaded and cached ({reason})"
        ) from error
    return Path(folder)
