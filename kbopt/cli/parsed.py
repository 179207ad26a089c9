"""What the options of a command come to: tasks, settings and configuration.

Each function takes the options that it reads out of `given`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from kbopt.cli.options.backend import BACKEND
from kbopt.cli.options.proposer import PROPOSER
from kbopt.cli.options.protocol import PROTOCOL
from kbopt.cli.options.search import SETTINGS
from kbopt.config import ALL_GPUS, AgentName, BackendConfig, ProposerConfig, device_kind, num_gpus
from kbopt.core.errors import UserError, unknown_name
from kbopt.core.kernel_strategies import KernelStrategy
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import Algorithm, Budget, SearchSettings
from kbopt.core.task import Task


def find_task(task: str | None, task_idx: int | None, kernelbench: Path | None, default: str) -> Task:
    """The task that the options name. Raises `UserError` where two of them disagree."""
    if task is not None and task_idx is not None:
        raise UserError(f"--task {task} and --task-idx {task_idx} both name a task: give one")
    name = task or (f"matmul/{task_idx}" if task_idx is not None else default)
    if not name:
        raise UserError("no task is named. Give --task NAME or --task PATH; `kbopt tasks` lists the names")
    if name.startswith("sim/"):
        from kbopt.simulated import landscape

        return landscape(name).task
    from kbopt.tasks import load_task

    return load_task(name, kernelbench=kernelbench)


def with_workloads(task: Task, selection: str | None) -> Task:
    """The task with those of its workloads that --workloads names."""
    if selection is None:
        return task
    from kbopt.core.workloads import selected

    return replace(task, source=selected(task.source, selection, task.name))


def find_tasks(names: str, kernelbench: Path | None) -> tuple[Task, ...]:
    """The tasks of a comma-separated list with patterns: `matmul`, `quick/*`, `level1/1..5`, `sim/smooth`."""
    from kbopt.tasks import expand

    found: list[Task] = []
    for part in filter(None, (part.strip() for part in names.split(","))):
        expanded = (part,) if part.startswith("sim/") else expand([part])
        found += [find_task(name, None, kernelbench, "") for name in expanded]
    if not found:
        raise UserError(f"--tasks {names!r} names no task; `kbopt tasks` lists them")
    return tuple(found)


def at_stated_precision(protocol: EvalProtocol, tasks: Sequence[Task]) -> EvalProtocol:
    """`protocol` at the precision that the tasks' formats state, where --precision is not given.

    Raises `UserError` where they state several.
    """
    from kbopt.tasks import precision_of

    if click.get_current_context().get_parameter_source("precision") is not ParameterSource.DEFAULT:
        return protocol
    stated = sorted({precision_of(task.source) or protocol.precision for task in tasks})
    if len(stated) > 1:
        raise UserError(
            f"the tasks are stated in {' and '.join(stated)}: give --precision for all, or run them apart"
        )
    return replace(protocol, precision=stated[0]) if stated else protocol


def algorithm_names(names: str) -> tuple[Algorithm, ...]:
    """The algorithms of a comma-separated list."""
    allowed: tuple[Algorithm, ...] = get_args(Algorithm)
    found = []
    for name in names.split(","):
        match = [algorithm for algorithm in allowed if algorithm == name.strip()]
        if not match:
            raise unknown_name("algorithm", name.strip(), allowed)
        found += match
    return tuple(found)


def seed_numbers(text: str) -> tuple[int, ...]:
    """`5` is the seeds 0 to 4, `0..4` the same, `3,7` these two; each once."""
    seeds: Sequence[int]
    try:
        if text.isdecimal():
            seeds = range(int(text))
        elif ".." in text:
            first, last = text.split("..")
            seeds = range(int(first), int(last) + 1)
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds[:_MOST_SEEDS]) < 0 or seeds[_MOST_SEEDS:]:
        raise UserError(
            f"--seeds {text[:40]!r}: give how many (5), a range (0..4), or a list (3,7), of up to "
            f"{_MOST_SEEDS} numbers from 0 on"
        )
    return tuple(seeds)


_MOST_SEEDS = 1000
"""More searches of one task than any comparison needs."""


def search_settings(given: dict[str, Any]) -> SearchSettings:
    """Takes the search's and budget's options out of `given`."""
    budget = Budget(
        evaluations=given.pop("max_evals"),
        usd=given.pop("max_usd"),
        tokens=given.pop("max_tokens"),
        minutes=given.pop("max_minutes"),
    )
    algorithm = given.get("algorithm")  # A sweep has several, and one of them may have an epsilon-net.
    for name in ("epsilon", "embedding_model"):
        if algorithm and _is_typed(name) and not replace(SETTINGS, algorithm=algorithm).uses_epsilon_net:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} and --algorithm {algorithm} do not go together: give an algorithm with epsNet, "
                f"such as PS_epsNet, or leave {option} out"
            )
    refinement = given["proposer"] == "llm+tunables"
    # Failed and repeated proposals cost no evaluation, so the budget decides and not the number of steps.
    given["num_steps"] = given["num_steps"] or budget.evaluations or SETTINGS.num_steps
    return replace(_taken(SETTINGS, given), budget=budget, refinement=refinement)


USERS = {
    "language": ("llm", "agent"),
    "api_base": ("llm",),
    "agent_evals": ("agent",),
    "agent_minutes": ("agent",),
}
"""Options by the proposers that use them, of whose names each is a part."""


def _refuse_unused(proposer: str, *, embeds: bool) -> None:
    """Raises `UserError` for an option that was typed and that nothing would use."""
    for name, users in USERS.items():
        used = any(user in proposer for user in users) or (name == "api_base" and embeds)
        if _is_typed(name) and not used:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} and --proposer {proposer} do not go together: give --proposer "
                f"{' or '.join(users)}, or leave {option} out"
            )


def _is_typed(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def first_strategies(
    given: dict[str, Any], proposer: ProposerConfig, backend: BackendConfig
) -> tuple[KernelStrategy, ...]:
    """Takes --strategies out of `given`: what first questions ask for, nothing where that is switched off."""
    from kbopt.compose.proposers import strategies

    return strategies(proposer, backend) if given.pop("uses_strategies") else ()


def eval_protocol(given: dict[str, Any]) -> EvalProtocol:
    """Takes the protocol's options out of `given`."""
    if given.pop("allow_tf32"):
        if given["arithmetic"] == "ieee":
            raise UserError("--allow-tf32 is --arithmetic tf32: leave one of it and --arithmetic ieee out")
        given["arithmetic"] = "tf32"
    return _taken(replace(PROTOCOL, timeout_s=given.pop("timeout")), given)


def backend_config(given: dict[str, Any]) -> BackendConfig:
    """Takes the backend's options out of `given`.

    With --address the evaluator may be on another machine than this one and than the explorers. There `all`
    GPUs are counted, and all of them take the device to be of one kind, this machine's unless it is named.
    """
    name, wait_s = given.pop("backend"), given.pop("start_timeout")
    on_cluster = name == "local" and click.get_current_context().params.get("address") is not None
    if given["gpus"] == ALL_GPUS and not on_cluster:
        given["gpus"] = num_gpus()
        if name != "local" or not given["gpus"]:
            raise UserError(
                "--gpus all: it is for --backend local, and this machine has to have an NVIDIA GPU, or with "
                "--address the evaluator's. Give a number."
            )
    said = click.get_current_context().get_parameter_source("spool") is ParameterSource.COMMANDLINE
    if said and name != "spool":
        raise UserError(f"--spool {given['spool']} goes with --backend spool: give both, or neither")
    given["spool"] = given["spool"] or BACKEND.spool
    is_default = click.get_current_context().get_parameter_source("gpu") is ParameterSource.DEFAULT
    if name == "spool" and is_default:
        given["gpu"] = ""  # The default is Modal's; nobody knows what will drain the spool.
    config = _taken(replace(BACKEND, name=name, start_timeout_s=wait_s), given)
    return replace(config, device=device_kind(config)) if on_cluster and config.device == "auto" else config


def proposer_config(given: dict[str, Any], tasks: Sequence[Task]) -> ProposerConfig:
    """Takes the proposer's options out of `given`, and reads the kernels of --start, for the first task."""
    name, limit_s = given.pop("proposer"), given.pop("request_timeout")
    config = replace(PROPOSER, name=name, timeout_s=limit_s)
    library = given.pop("library")
    given["library"] = "" if given.pop("no_library") else library or PROPOSER.library
    given["agent_command"] = _with_whole_paths(given["agent_command"])
    named = [option for option in ("agent", "agent_command") if given[option]]
    if name == "agent" and not named:
        raise UserError(
            f"--proposer agent names no agent: add --agent {', '.join(get_args(AgentName))}, or "
            "--agent-command COMMAND"
        )
    if name != "agent" and named:
        option = f"--{named[0].replace('_', '-')}"
        raise UserError(
            f"{option} and --proposer {name} do not go together: give --proposer agent, or leave {option} out"
        )
    if given["models"] and "llm" not in name:
        raise UserError(
            f"--model and --proposer {name} do not go together: give --proposer llm or llm+tunables, or "
            "leave --model out"
        )
    _refuse_unused(name, embeds=bool(given["embedding_model"]))
    if files := given.pop("start", ()):
        from kbopt.proposers.starts import read_starts

        config = replace(config, starts=read_starts(files, partial(_start, task=tasks[0])))
    return _taken(config, given)


def _start(text: str, name: str, task: Task) -> str:
    """The kernel of --start as a source that defines `ModelNew`. Raises `UserError` for one that has none of
    the names that its task's format asks for.
    """
    from kbopt.tasks import as_model, missing

    source = as_model(text, name, task)
    if lost := missing(source, name, task):
        raise UserError(f"--start is no kernel of the task's format: {lost}. Name it so.")
    return source


def _with_whole_paths(command: str) -> str:
    """`command` with the whole paths of the files that it names: it runs in another folder."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--agent-command {command!r} is no command: {error}. Close its quotes.") from None
    return shlex.join(str(Path(word).absolute()) if _is_file(word) else word for word in words)


def _is_file(word: str) -> bool:
    """Whether the word is a file's name. A script in quotes is none, and may be longer than names can be."""
    try:
        return Path(word).is_file()
    except OSError:
        return False


C = TypeVar("C", SearchSettings, EvalProtocol, BackendConfig, ProposerConfig)


def _taken(config: C, given: dict[str, Any]) -> C:
    named = [field.name for field in fields(config) if field.name in given and field.name != "name"]
    return replace(config, **{name: given.pop(name) for name in named})
