"""What every set of published kernels comes to: kernels with tasks and claims, and entries without one."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbopt.core.task import Task
from kbopt.core.text import encodable
from kbopt.tasks.candidates import as_model
from kbopt.tasks.catalog import load_task
from kbopt.tasks.formats.model import fault, text_of
from kbopt.tasks.source import family_of, validate

_LINE = "Have one JSON object in each line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the set says of a kernel: its speedup over eager PyTorch, and the device as the set names it.

    `on` is empty where the set names none.
    """

    speedup: float
    on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A kernel of a set. `where` is its file, or file and line; `source` defines `ModelNew`.

    With `own_reference` the set itself says what is correct: its reference is no problem that kbopt ships or
    that a checkout of KernelBench has.
    """

    name: str
    where: str
    task: Task
    source: str
    claim: Claim | None = None
    own_reference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """An entry that cannot be judged, and why: no JSON, no reference, a task that is not there."""

    name: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """An entry in which the set's authors left the kernel out."""

    name: str
    where: str


Entry = Published | Broken | Empty


class Tasks:
    """Tasks by name or by a reference's text, each read once."""

    def __init__(self, kernelbench: Path | None) -> None:
        self.named = functools.cache(functools.partial(load_task, kernelbench=kernelbench))

    def of_text(self, source: object, label: str, where: str) -> Task:
        """The task whose reference is `source`. Raises `UserError` where that is in no KernelBench format."""
        text = valid_source(source, f"{where}, reference")
        validate(text, f"{where}, reference")
        return Task(name=label, source=text, family=family_of(text))

    def of_file(self, path: Path) -> Task:
        """The task in the file. Raises `UserError`."""
        return self.named(str(path))


def published(
    name: str,
    where: str,
    task: Task,
    text: object,
    claim: Claim | None,
    *,
    file: str = "",
    own_reference: bool = False,
) -> Published:
    """The kernel `text` as an entry; `file` is its name where that tells its form.

    Raises `UserError` for a text that is no source.
    """
    source = as_model(valid_source(text, f"{where}, kernel"), file or where, task)
    return Published(
        name=name,
        where=where,
        task=task,
        source=source,
        claim=claim,
        own_reference=own_reference or task.is_path,
    )


def valid_source(text: object, where: str) -> str:
    """`text` as a source. Raises `UserError` for what is no text, or empty."""
    if not isinstance(text, str) or not text.strip():
        raise fault(where, f"{json.dumps(text)[:40]} instead of a source", "Give its text")
    try:
        return encodable(text).removeprefix("\ufeff")
    except ValueError as error:
        raise fault(where, str(error), "Give its text in Unicode") from None


_MOST_CLAIMED = 1e12
"""What is more, or infinite, is no measurement."""


def claim_of(value: object, where: str, on: str = "") -> Claim | None:
    """The claim in a JSON value: a positive number; None for null, zero and what is not finite.

    Raises `UserError` for another value.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fault(where, f"the claim is {json.dumps(value)[:40]}", "Give a number, such as 1.5 for 1.5x")
    return Claim(speedup=float(value), on=on) if 0 < value <= _MOST_CLAIMED else None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Each line's place, and its value: the object that stands there, or the `UserError` of a bad line.

    Lines end at line feeds alone. Raises `UserError` for a file that cannot be read.
    """
    for number, text in enumerate(text_of(path, "surrogateescape").split("\n"), start=1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        value: object
        try:
            text.encode()  # A byte that is no UTF-8 was read as a surrogate, which has no encoding.
            value = json.loads(text)
            if not isinstance(value, dict):
                value = fault(where, f"{text.strip()[:40]!r} is no JSON object", _LINE)
        except UnicodeEncodeError:
            value = fault(where, "bytes that are no UTF-8", "Save it as UTF-8")
        except (ValueError, RecursionError) as error:
            value = fault(where, f"no JSON, {error}", _LINE)
        yield where, value
