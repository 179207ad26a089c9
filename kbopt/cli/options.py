"""The options that several commands share, and how they become configuration.

Defaults are read from the configuration's own dataclasses, so that each stands in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click

from kbopt.config import BackendConfig, BackendName, Language, ProposerConfig, ProposerName
from kbopt.core import codec
from kbopt.core.errors import UserError, unknown_name
from kbopt.core.settings import Algorithm, Budget, ScoreFunction, SearchSettings
from kbopt.core.types import Arithmetic, Baseline, Clock, EvalProtocol, Outputs, Precision, Task, TorchOps

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS, PROTOCOL, BACKEND, PROPOSER = SearchSettings(), EvalProtocol(), BackendConfig(), ProposerConfig()


class Name(click.ParamType[str]):
    """One of a fixed set of names; a wrong one is answered with the nearest."""

    def __init__(self, kind: str, allowed: object) -> None:
        self.name = kind
        self.allowed = tuple(str(name) for name in get_args(allowed))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.allowed:
            self.fail(str(unknown_name(self.name, str(value), self.allowed)), param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.allowed)


class Models(click.ParamType[str]):
    """`name[:weight],...`, checked when the models are first needed."""

    name = "NAME[:WEIGHT],..."


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order in which `--help` shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


task_options = options(
    click.option("--task", metavar="NAME", help="quick/gelu, matmul/9, level1/12, or a path to a .py file."),
    click.option("--task-idx", type=click.IntRange(0, 15), help="Short for --task matmul/IDX."),
    click.option(
        "--kernelbench",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="KBOPT_KERNELBENCH",
        help="A KernelBench checkout for level tasks; without it the Hugging Face dataset.",
    ),
)

each_search_options = (
    click.option(
        "--num-steps",
        type=click.IntRange(1),
        help="Steps of the original's size: candidates x proposals each. "
        f"Default {SETTINGS.num_steps}, or as many as --max-evals can use.",
    ),
    click.option(
        "--num-candidates", type=click.IntRange(1), default=SETTINGS.num_candidates, show_default=True
    ),
    click.option(
        "--num-proposals", type=click.IntRange(1), default=SETTINGS.num_proposals, show_default=True
    ),
    click.option(
        "--epsilon",
        type=click.FloatRange(0, 2),
        default=SETTINGS.epsilon,
        show_default=True,
        help="Distance of embeddings under which a proposal counts as known (epsNet).",
    ),
    click.option(
        "--score-function",
        type=Name("score function", ScoreFunction),
        default=SETTINGS.score_function,
        show_default=True,
    ),
    click.option("--synchronous", is_flag=True, help="The original's steps with their barriers."),
    click.option(
        "--target-speedup",
        type=click.FloatRange(0),
        help="Stop once a kernel measured twice is surely above it.",
    ),
)
"""What the searches of a sweep have in common; algorithms and seeds are the sweep's own lists."""

search_options = options(
    click.option(
        "--algorithm", type=Name("algorithm", Algorithm), default=SETTINGS.algorithm, show_default=True
    ),
    click.option("--seed", type=click.IntRange(0), default=SETTINGS.seed, show_default=True),
    *each_search_options,
)

budget_options = options(
    click.option("--max-evals", type=click.IntRange(1), help="Stop after so many evaluations."),
    click.option(
        "--max-usd",
        type=click.FloatRange(0),
        help="Stop after so many dollars for models and rented containers.",
    ),
    click.option("--max-tokens", type=click.IntRange(1), help="Stop after so many tokens."),
    click.option(
        "--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop after so many minutes."
    ),
)

protocol_options = options(
    click.option("--trials", type=click.IntRange(1), default=PROTOCOL.trials, help="Correctness checks."),
    click.option("--timed", type=click.IntRange(10), default=PROTOCOL.timed, help="Timed calls."),
    click.option("--precision", type=Name("precision", Precision), default=PROTOCOL.precision),
    click.option(
        "--torch-ops",
        type=Name("choice", TorchOps),
        default=PROTOCOL.torch_ops,
        help="What becomes of candidates that compute with PyTorch's own operations.",
    ),
    click.option(
        "--arithmetic",
        type=Name("arithmetic", Arithmetic),
        default=PROTOCOL.arithmetic,
        show_default=True,
        help="What fp32 tasks compute in: PyTorch's default (fp32 products, TF32 in convolutions), "
        "ieee (no TF32), or tf32.",
    ),
    click.option("--allow-tf32", is_flag=True, help="The old name of --arithmetic tf32."),
    click.option(
        "--outputs",
        type=Name("choice", Outputs),
        default=PROTOCOL.outputs,
        show_default=True,
        help="Whether each call has to return memory of its own, or may reuse the last one's (CUDA "
        "graphs, static buffers).",
    ),
    click.option(
        "--baseline",
        type=Name("baseline", Baseline),
        default=PROTOCOL.baseline,
        show_default=True,
        help="What the ranking speedup is over: eager PyTorch, torch.compile, or the fastest baseline.",
    ),
    click.option(
        "--clock",
        type=Name("clock", Clock),
        default=PROTOCOL.clock,
        show_default=True,
        help="What ranks: the device's work alone, or the latency of one synchronised call.",
    ),
    click.option("--eval-mode", is_flag=True, help="Run both models after Module.eval(): no dropout."),
    click.option(
        "--timeout",
        type=click.FloatRange(1),
        default=PROTOCOL.timeout_s,
        help="Seconds for check and timing of a candidate.",
    ),
)

backend_options = options(
    click.option("--backend", type=Name("backend", BackendName), default=BACKEND.name, show_default=True),
    click.option(
        "--device", default=BACKEND.device, show_default=True, help="Local backend: auto, cpu, cuda, cuda:1."
    ),
    click.option(
        "--no-sandbox",
        is_flag=True,
        help="Local backend: run models' kernels even if it cannot isolate them.",
    ),
    click.option("--gpu", default=BACKEND.gpu, show_default=True, help="Modal backend: L4, L40S, H100, ..."),
    click.option("--gpus", type=click.IntRange(1, 64), default=BACKEND.gpus, help="Modal: containers."),
    click.option("--lane", default=BACKEND.lane, help="Modal: a name for containers of one's own."),
    click.option(
        "--warm-minutes", type=float, default=BACKEND.warm_minutes, help="Modal: kept warm after use."
    ),
    click.option(
        "--start-timeout",
        type=click.FloatRange(1),
        default=BACKEND.start_timeout_s,
        help="Modal: seconds to wait for a GPU.",
    ),
)

proposer_options = options(
    click.option("--proposer", type=Name("proposer", ProposerName), default=PROPOSER.name, show_default=True),
    click.option(
        "--model", "models", type=Models(), default=PROPOSER.models, help="LiteLLM names, with weights."
    ),
    click.option(
        "--api-base",
        envvar="KBOPT_API_BASE",
        show_envvar=True,
        help="An OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1.",
    ),
    click.option(
        "--prompts",
        type=click.Path(exists=True, file_okay=False),
        help="A folder of prompt templates that replace kbopt's.",
    ),
    click.option("--language", type=Name("language", Language), help="What models write; default by device."),
    click.option("--embedding-model", help="A LiteLLM embedding model for epsNet; default a local embedder."),
    click.option(
        "--request-timeout",
        type=click.FloatRange(1),
        default=PROPOSER.timeout_s,
        show_default=True,
        help="Seconds that a model may take for one answer.",
    ),
)


wandb_options = options(
    click.option("--use-wandb", is_flag=True, help="Log to W&B."),
    click.option("--project-name", default="kbopt", show_default=True, help="The W&B project."),
    click.option(
        "--wandb-mode", type=Name("mode", Literal["online", "offline"]), help="Default: WANDB_MODE."
    ),
)


def find_task(task: str | None, task_idx: int | None, kernelbench: Path | None, default: str) -> Task:
    """The task that the options name. Raises `UserError` where two of them disagree."""
    if task is not None and task_idx is not None:
        raise UserError(f"--task {task} and --task-idx {task_idx} both name a task: give one")
    name = task or (f"matmul/{task_idx}" if task_idx is not None else default)
    if name.startswith("sim/"):
        from kbopt.simulated import landscape

        return landscape(name).task
    from kbopt.tasks import load_task

    return load_task(name, kernelbench=kernelbench)


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
    """`5` is the seeds 0 to 4, `0..4` the same, `3,7` these two."""
    try:
        if text.isdecimal():
            seeds = tuple(range(int(text)))
        elif ".." in text:
            first, last = text.split("..")
            seeds = tuple(range(int(first), int(last) + 1))
        else:
            seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds:
        raise UserError(f"--seeds {text!r}: give how many (5), a range (0..4), or a list (3,7)")
    return seeds


def search_settings(given: dict[str, Any]) -> SearchSettings:
    """Takes the search's and budget's options out of `given`."""
    budget = Budget(
        evaluations=given.pop("max_evals"),
        usd=given.pop("max_usd"),
        tokens=given.pop("max_tokens"),
        minutes=given.pop("max_minutes"),
    )
    refinement = given["proposer"] == "llm+tunables"
    # Failed and repeated proposals cost no evaluation, so the budget decides and not the number of steps.
    given["num_steps"] = given["num_steps"] or budget.evaluations or SETTINGS.num_steps
    return replace(_taken(SETTINGS, given), budget=budget, refinement=refinement)


def eval_protocol(given: dict[str, Any]) -> EvalProtocol:
    """Takes the protocol's options out of `given`."""
    if given.pop("allow_tf32"):
        if given["arithmetic"] == "ieee":
            raise UserError("--allow-tf32 is --arithmetic tf32: leave one of it and --arithmetic ieee out")
        given["arithmetic"] = "tf32"
    return _taken(replace(PROTOCOL, timeout_s=given.pop("timeout")), given)


def backend_config(given: dict[str, Any]) -> BackendConfig:
    """Takes the backend's options out of `given`."""
    name, wait_s = given.pop("backend"), given.pop("start_timeout")
    return _taken(replace(BACKEND, name=name, start_timeout_s=wait_s), given)


def proposer_config(given: dict[str, Any]) -> ProposerConfig:
    """Takes the proposer's options out of `given`."""
    name, limit_s = given.pop("proposer"), given.pop("request_timeout")
    return _taken(replace(PROPOSER, name=name, timeout_s=limit_s), given)


C = TypeVar("C", SearchSettings, EvalProtocol, BackendConfig, ProposerConfig)


def _taken(config: C, given: dict[str, Any]) -> C:
    named = [field.name for field in fields(config) if field.name in given and field.name != "name"]
    return replace(config, **{name: given.pop(name) for name in named})


def to_stderr(line: str) -> None:
    """Say something without touching stdout."""
    click.echo(line, err=True)


def untyped(value: object) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, by name."""
    fields = codec.encode(value)
    del fields["type"]
    return fields


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(codec.encode(document), ensure_ascii=False))
