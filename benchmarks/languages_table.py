"""A kernel in each language, and tasks whose gradients are judged: is each right, and how fast?

python3 -m benchmarks.languages_table --out results.jsonl --minutes 3 --device cuda
python3 -m benchmarks.languages_table --out results.jsonl --kernelbench DIR --gpus 2

A language's kernel is the example in its prompt, on a task of this file. The gradients are those of the
adversarial suite, controls and cheats, and with `--kernelbench` of problems whose kernel is the reference
itself. Each answer is a JSON line of `--out`; what that file holds is not asked again. Ends with a table.
Needs torch, numpy, on a GPU Triton, and each language's package: a line names the one that is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from benchmarks.formats_table import Example, Shipped, add_options, judge_all, read_lines, table
from kbopt.core.languages import Language
from kbopt.core.task import Task
from kbopt.tasks import load_task
from tests.adversarial.case import Device
from tests.adversarial.cases import CHEATS, CONTROLS

ROOT = Path(__file__).parents[1]
PROMPTS = ROOT / "kbopt/proposers/prompts"
RELU = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x.relu()


def get_inputs():
    return [torch.randn(ROWS, 4096)]


def get_init_inputs():
    return []
"""
LINEAR_RELU = """
import torch


class Model(torch.nn.Module):
    def __init__(self, num_in, num_out):
        super().__init__()
        self.linear = torch.nn.Linear(num_in, num_out)

    def forward(self, x):
        return self.linear(x).relu()


def get_inputs():
    return [torch.randn(ROWS, 1024)]


def get_init_inputs():
    return [1024, 1024]
"""
ROWS = {"cpu": 256, "cuda": 16384}
"""4 MiB of inputs on a CPU, 256 MiB on a GPU: more than its cache."""
PROBLEMS = ("level1/36", "level1/40", "level1/94", "level1/96")
"""Two norms and two losses: with gradients for inputs, and for parameters in one."""
GRADIENTS, LANGUAGES = "gradients", "languages"


def examples(device: Device, kernelbench: Path | None) -> Iterator[Example]:
    """The kernels in each language, then the tasks with gradients."""
    for language in get_args(Language):
        if (language == "c") == (device == "cpu"):
            guide = (PROMPTS / f"{language}.md").read_text()
            (source,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
            text = LINEAR_RELU if language == "cublaslt" else RELU
            task = Task(name="example", source=text.replace("ROWS", str(ROWS[device])))
            yield _example(LANGUAGES, language, task, {"prompt": source})
    cases = [case for case in (*CONTROLS, *CHEATS) if case.protocol.backward and device in case.devices]
    for name in dict.fromkeys(case.task for case in cases):
        sources = {
            f"{case.name}: {' or '.join(case.expected)}": case.source for case in cases if case.task == name
        }
        task = Task(name=name, source=(ROOT / f"tests/adversarial/tasks/{name}.py").read_text())
        yield _example(GRADIENTS, name, task, sources)
    for name in PROBLEMS if kernelbench else ():
        task = load_task(name, kernelbench=kernelbench)
        yield _example(GRADIENTS, name, task, {"its reference: measured": task.equal_code})


def _example(group: str, name: str, task: Task, sources: Mapping[str, str]) -> Example:
    shipped = [Shipped(name=name, source=source, refused="") for name, source in sources.items()]
    return Example(
        format=group,
        name=name,
        task=task,
        refused="",
        num_workloads=1,
        num_chosen=1,
        solutions=tuple(shipped),
        backward=group == GRADIENTS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kernelbench", type=Path, help="a checkout: four of its problems with gradients, too"
    )
    add_options(parser)
    options = parser.parse_args()
    if options.out is None:
        parser.error("give --out FILE for the results")
    device: Device = "cpu" if options.device == "cpu" else "cuda"
    found = list(examples(device, options.kernelbench))
    found = [one for one in found if options.only in one.format or options.only in one.name]
    lines = read_lines(options.out)
    if not options.table:
        asyncio.run(judge_all(options, found, lines))
    print(table(found, lines))


if __name__ == "__main__":
    main()
