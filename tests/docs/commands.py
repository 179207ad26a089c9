"""What a command of the documentation has to satisfy: its options parse, its names stand for something."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kbopt.backends.modal_account import check_gpu
from kbopt.cli import app, parsed
from kbopt.evaluation.__main__ import parser
from kbopt.proposers.models import parse_models
from kbopt.simulated import landscape
from kbopt.tasks import expand, load_task
from kbopt.tasks.kernelbench import Problem
from tests.docs.examples import OTHERS, ROOT, Example

MOST_EVALUATIONS = 100
"""A simulated command that is run may ask for so many in all."""

SUBMITTED = {"experiments/sweep.py": "sweep", "experiments/benchmark.py": "bench"}


def check(example: Example) -> str:
    """Raise for a command that would not do what the page says. Returns who it belongs to."""
    words = example.words
    match example.program:
        case "kbopt":
            check_names(parse(words[1:]).params)
            return "kbopt"
        case "make":
            check_make(words[1:])
            return "make"
        case "python3" if words[1:3] == ["-m", "kbopt.evaluation"]:
            parser().parse_args(words[3:])
            return "kbopt"
        case "timeout" if words[4:7] == ["python3", "-m", "kbopt.evaluation"]:  # -s SIGNAL SECONDS
            parser().parse_args(words[7:])
            return "kbopt"
        case "sbatch":
            assert (ROOT / words[1]).is_file(), words[1]
            parser().parse_args(["drain", *words[2:]])
            return "kbopt"
        case "ray" if words[1:2] == ["submit"]:
            assert (ROOT / words[2]).is_file(), words[2]
            check_names(parse([SUBMITTED[words[3]], *words[4:]]).params)
            return "ray"
        case "ray":
            for word in words:
                if "kbopt " in word:
                    inner = word[word.rindex("kbopt ") :]
                    check_names(parse(shlex.split(inner)[1:]).params)
            return "ray"
        case program if program in OTHERS:
            return program
    raise ValueError(f"{words[0]} is neither kbopt's nor in OTHERS; check it, or write it down there")


def parse(words: Sequence[str]) -> click.Context:
    """The context of the innermost command, made by click as for a real call, which does not happen."""
    command: click.Command = app
    context = app.make_context("kbopt", list(words))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return context


def check_names(given: dict[str, Any]) -> None:
    """Raise for a task, algorithm, GPU, model or seed among a command's values that is none."""
    if given.get("task"):
        check_task(given["task"])
    for name in filter(None, (given.get("task_names") or "").split(",")):
        for task in (name,) if name.startswith("sim/") or "#" in name else expand([name]):
            check_task(task)
    if "algorithms" in given:
        parsed.algorithm_names(given["algorithms"])
    if "seeds" in given:
        parsed.seed_numbers(given["seeds"])
    if "gpu" in given:
        check_gpu(given["gpu"])
    if given.get("models"):
        parse_models(given["models"])


def check_task(name: str) -> None:
    """Problems of KernelBench's levels and files need not be here; their names have to be well formed."""
    if name.startswith("sim/"):
        landscape(name)
    elif not name.endswith(".py") and "#" not in name and Problem.parse(name) is None:
        load_task(name)


def check_make(words: Sequence[str]) -> None:
    """Each target is one of the Makefile's; ARGS are options of what the target runs."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            assert name in targets, f"the Makefile has no target {name}, but {targets}"
        elif name == "ARGS" and words[0] == "run":
            check_names(parse(["run", *shlex.split(value)]).params)


def check_span(example: Example) -> None:
    """A command in a sentence may be cut short, but every command and option in it exists."""
    words = example.words
    if example.program == "make":
        check_make(words[1:])
        return
    here: list[click.Command] = [app]
    options = [word.split("=")[0] for word in words if word.startswith("-")]
    for word in itertools.takewhile(lambda word: not word.startswith("-"), words[1:]):
        if not all(isinstance(command, click.Group) for command in here):
            break  # an argument
        if not word.isupper():  # NAME and the like stand for something
            here = [_below(command, name) for command in here for name in word.split("|")]
    known = {option for command in here for param in command.params for option in param.opts}
    for option in options:
        assert option in known | {"--help"}, f"no option {option} in {sorted(known)}"


def _below(command: click.Command, name: str) -> click.Command:
    assert isinstance(command, click.Group)
    found = command.get_command(click.Context(command), name)
    assert found is not None, f"no command {name}"
    return found


def cheap(examples: Sequence[Example]) -> list[Example]:
    """The commands of one page that need no key, GPU or account and are done in seconds.

    In their order: what only reads a run or a sweep is among them where a command before it made that.
    """
    made: set[Path] = set()
    chosen = []
    for example in examples:
        if example.program != "kbopt":
            continue
        try:
            context = parse(example.words[1:])
        except click.ClickException:
            continue  # reported by the test of this very command
        given = context.params
        match context.command_path.removeprefix("kbopt "):
            case "tasks":
                wanted = given["kernelbench"] is None  # nobody has cloned the checkout
            case "runs":
                wanted = True
            case "run" if given["backend"] == given["proposer"] == "simulated" and given["out"]:
                wanted = (given["max_evals"] or MOST_EVALUATIONS + 1) <= MOST_EVALUATIONS
                made |= {given["out"]} if wanted else set()
            case "sweep" | "bench" as kind if kind == "bench" or given["backend"] == "simulated":
                wanted = given["task_names"].startswith("sim/") and _evaluations(given) <= MOST_EVALUATIONS
                made |= {given["out"] / given["name"]} if wanted else set()
            case "show" | "export" | "resume" | "eval":
                wanted = given["run"] in made
            case "report":
                wanted = set(given["runs"]) <= made and not given["open_page"]
            case "sweep status" | "sweep stop" | "sweep resume" | "sweep results":
                wanted = given["out"] / given["name"] in made
            case _:
                wanted = False
        if wanted:
            chosen.append(example)
    return chosen


def _evaluations(given: dict[str, Any]) -> int:
    searches = (
        len(given["task_names"].split(","))
        * len(parsed.algorithm_names(given["algorithms"]))
        * len(parsed.seed_numbers(given["seeds"]))
    )
    return searches * (given["max_evals"] or MOST_EVALUATIONS + 1)
