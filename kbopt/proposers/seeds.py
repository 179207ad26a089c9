"""The seed kernels that ship with kbopt: where a search without a language model starts.

`kernels/FAMILY/cpu_NAME.py` and `cuda_NAME.py` are complete sources. One that serves several variants of
its family (a formula, a layout, a triangle) marks the assignments and returns that differ with
`# variant: KEY`; `kernels/FAMILY/variants.toml` gives their right-hand sides for each variant. What a variant
does not give stays as the seed has it.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Literal

from kbopt.core.errors import UserError
from kbopt.core.task import Seed, Task, seed_name

DeviceKind = Literal["cpu", "cuda"]

_KERNELS = Path(__file__).parent / "kernels"
_VARIANT_LINE = re.compile(
    r"^(?P<head>[ \t]*(?:return|\w+ =|#define \w+) )(?P<value>.*?)"
    r"(?P<tail>;?[ \t]*(?:#|//) variant: (?P<key>\w+))$",
    re.MULTILINE,
)


@functools.cache
def seeds_for(family: str, device_kind: DeviceKind) -> tuple[Seed, ...]:
    """The seeds that fit `family` (`softmax`, `elementwise/swish`, ...), by name; none for an unknown one."""
    group, _, variant = family.partition("/")
    folder = _KERNELS / group
    if not group or not folder.is_dir():
        return ()
    table = folder / "variants.toml"
    variants = tomllib.loads(table.read_text()) if table.exists() else {"": {}}
    if variant not in variants:
        return ()
    sources = (path.read_text() for path in sorted(folder.glob(f"{device_kind}_*.py")))
    return tuple(
        Seed(name=seed_name(source), source=_specialise(source, variants[variant])) for source in sources
    )


def check_seeds(task: Task, device_kind: DeviceKind) -> None:
    """Raises `UserError` where no seed fits the task on such a device."""
    if not seeds_for(task.family, device_kind):
        what = f"of the family {task.family!r}" if task.family else "for it"
        raise UserError(
            f"the task {task.name} cannot start from a seed kernel: kbopt ships none {what} for a "
            f"{'CPU' if device_kind == 'cpu' else 'GPU'}. Give a kernel of your own with --start FILE, use "
            "--proposer llm with --model, or a task whose family `kbopt tasks` names."
        )


def _specialise(source: str, values: dict[str, str]) -> str:
    def replaced(line: re.Match[str]) -> str:
        return line["head"] + values.get(line["key"], line["value"]) + line["tail"]

    return _VARIANT_LINE.sub(replaced, source)
