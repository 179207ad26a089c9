"""The options that several commands share; `parsed` says what they come to.

Defaults are read from the configuration's own dataclasses, so that each stands in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from kbopt.cli.grouped import AGENT, BASIC, BUDGET, DEVICE, EXPERT, MODEL, Option
from kbopt.cli.values import Device, GpuCount, Kernels, Models, Name, Number
from kbopt.config import AgentName, BackendConfig, BackendName, ProposerConfig, ProposerName
from kbopt.core import codec
from kbopt.core.extras import require
from kbopt.core.languages import Language
from kbopt.core.protocol import (
    Arithmetic,
    Baseline,
    Clock,
    EvalProtocol,
    Outputs,
    Precision,
    TorchOps,
    Verdict,
)
from kbopt.core.settings import Algorithm, ScoreFunction, SearchSettings

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS, PROTOCOL, BACKEND, PROPOSER = SearchSettings(), EvalProtocol(), BackendConfig(), ProposerConfig()


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order in which `--help` shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def option(*names: str, group: str = BASIC, **attributes: Any) -> Callable[[F], F]:
    """An option in one of the groups of `--help`."""
    return click.option(*names, cls=Option, group=group, **attributes)


def to_stderr(line: str) -> None:
    """Say something without touching stdout."""
    click.echo(line, err=True)


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(codec.encode(document), ensure_ascii=False))


kernelbench_option = option(
    "--kernelbench",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="KBOPT_KERNELBENCH",
    help="A KernelBench checkout for level tasks. Default: KBOPT_KERNELBENCH, else the Hugging Face dataset.",
)

workloads_option = option(
    "--workloads",
    metavar="shown|all|NAME,...",
    help="Of a task with workloads judge these alone: those that are shown, all of them, or those named. "
    "Default: shown and hidden ones, and for a final verdict those held out beside them.",
)

task_options = options(
    option(
        "--task",
        metavar="NAME",
        help="quick/gelu, matmul/9, level1/12, a .py file, or a folder in another format: PATH or "
        "PATH#WORKLOAD. No default but in `run`: quick/gelu.",
    ),
    option("--task-idx", type=click.IntRange(0, 15), help="Short for --task matmul/IDX. Default: --task."),
    kernelbench_option,
    workloads_option,
)

start_option = option(
    "--start",
    type=Kernels(),
    default=(),
    show_default=False,
    help="Kernels of yours to start from, tuned by their `# tune:` comments or improved by a model. "
    "Default: the seed kernels that ship with kbopt for the task.",
)

each_search_options = (
    option(
        "--num-steps",
        group=BUDGET,
        type=click.IntRange(1),
        help="Rounds of --num-candidates x --num-proposals proposals each. "
        f"Default {SETTINGS.num_steps}, or as many as --max-evals can use.",
    ),
    option(
        "--target-speedup",
        group=BUDGET,
        type=Number(0),
        help="Stop once a kernel measured twice is surely above it. Default: no such end.",
    ),
    option(
        "--target-roofline",
        group=BUDGET,
        type=Number(0, 1, min_open=True),
        help="Stop once a kernel measured twice is surely at this share of its roofline, the time in which "
        "the task's bytes can be moved once. Default: no such end.",
    ),
    option(
        "--num-candidates",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.num_candidates,
        help="Candidates that are improved side by side.",
    ),
    option(
        "--num-proposals",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.num_proposals,
        help="New kernels proposed from each of them in a round.",
    ),
    option(
        "--in-flight",
        "max_in_flight",
        group=EXPERT,
        type=click.IntRange(1),
        default=SETTINGS.max_in_flight,
        help="How many kernels of one search may be asked for or wait for their result. Few leave budget for "
        "what the first results teach, where a spool waits for its device.",
    ),
    option(
        "--epsilon",
        group=EXPERT,
        type=Number(0, 2),
        default=SETTINGS.epsilon,
        help="Distance of embeddings under which a proposal counts as known (algorithms with epsNet).",
    ),
    option(
        "--score-function",
        group=EXPERT,
        type=Name("score function", ScoreFunction),
        default=SETTINGS.score_function,
        help="A candidate's priority: its mean score; with a bonus (ucb) or a malus (lcb) while it has been "
        "measured little.",
    ),
    option(
        "--synchronous",
        group=EXPERT,
        is_flag=True,
        help="PrioritySearch as published: steps with barriers, one after the other.",
    ),
)
"""What the searches of a sweep have in common; algorithms and seeds are the sweep's own lists."""

search_options = options(
    option(
        "--algorithm",
        type=Name("algorithm", Algorithm),
        default=SETTINGS.algorithm,
        help="PS is PrioritySearch; epsNet drops near-duplicates, Summarizer adds advice from all that was "
        "tried; best_of_n and random are baselines.",
    ),
    option("--seed", type=click.IntRange(0), default=SETTINGS.seed, help="Seed of all random choices."),
    *each_search_options,
)

budget_options = options(
    option(
        "--max-evals",
        group=BUDGET,
        type=click.IntRange(1),
        help="Stop after so many evaluations. Default: no limit.",
    ),
    option(
        "--max-usd",
        group=BUDGET,
        type=Number(0),
        help="Stop after so many dollars for models and rented containers. Default: no limit.",
    ),
    option(
        "--max-tokens",
        group=BUDGET,
        type=click.IntRange(1),
        help="Stop after so many tokens. Default: no limit.",
    ),
    option(
        "--max-minutes",
        group=BUDGET,
        type=Number(0, min_open=True),
        help="Stop after so many minutes. Default: no limit.",
    ),
)

precision_option = option(
    "--precision",
    group=DEVICE,
    type=Name("precision", Precision),
    default=PROTOCOL.precision,
    help="Of inputs and weights.",
)

arithmetic_option = option(
    "--arithmetic",
    group=EXPERT,
    type=Name("arithmetic", Arithmetic),
    default=PROTOCOL.arithmetic,
    help="What fp32 tasks compute in: PyTorch's default (fp32 products, TF32 in convolutions), ieee "
    "(no TF32), "
    "or tf32.",
)

eval_mode_option = option(
    "--eval-mode", group=EXPERT, is_flag=True, help="Run both models after Module.eval(): no dropout."
)

backward_option = option(
    "--backward",
    group=EXPERT,
    is_flag=True,
    help="Time forward and backward together, and check the gradients as outputs are.",
)

device_option = option(
    "--device",
    group=DEVICE,
    type=Device(),
    default=BACKEND.device,
    help="Local backend: which device. Spool: cpu where no GPU drains it.",
)

protocol_options = options(
    precision_option,
    option(
        "--trials",
        group=EXPERT,
        type=click.IntRange(1),
        default=PROTOCOL.trials,
        help="Correctness checks, each with fresh inputs.",
    ),
    option(
        "--timed",
        group=EXPERT,
        type=click.IntRange(10),
        default=PROTOCOL.timed,
        help="Timed calls of a candidate.",
    ),
    option(
        "--torch-ops",
        group=EXPERT,
        type=Name("choice", TorchOps),
        default=PROTOCOL.torch_ops,
        help="What becomes of candidates that compute with PyTorch's own operations.",
    ),
    arithmetic_option,
    option("--allow-tf32", group=EXPERT, is_flag=True, help="The old name of --arithmetic tf32."),
    option(
        "--outputs",
        group=EXPERT,
        type=Name("choice", Outputs),
        default=PROTOCOL.outputs,
        help="Whether each call returns memory of its own, or may reuse the last one's (CUDA graphs, "
        "static buffers).",
    ),
    option(
        "--baseline",
        group=EXPERT,
        type=Name("baseline", Baseline),
        default=PROTOCOL.baseline,
        help="What the ranking speedup is over: eager PyTorch, torch.compile, or the fastest baseline.",
    ),
    option(
        "--clock",
        group=EXPERT,
        type=Name("clock", Clock),
        default=PROTOCOL.clock,
        help="What ranks: the device's work alone, or the latency of one synchronised call.",
    ),
    eval_mode_option,
    backward_option,
    option(
        "--timeout",
        group=EXPERT,
        type=Number(1),
        default=PROTOCOL.timeout_s,
        help="Seconds for check and timing of a candidate.",
    ),
)

search_verdict_option = option(
    "--verdict",
    group=EXPERT,
    type=Name("verdict", Verdict),
    default="strict",
    help="Which one --verbose prints; strict ranks. KernelBench's is computed for the best kernel at the "
    "end, with kernelbench or both for each.",
)

backend_options = options(
    option(
        "--backend",
        group=DEVICE,
        type=Name("backend", BackendName),
        default=BACKEND.name,
        help="Where kernels are judged: this machine, a GPU rented from Modal, machines without a network "
        "that drain a shared folder, or a simulated device.",
    ),
    device_option,
    option(
        "--spool",
        group=DEVICE,
        type=click.Path(file_okay=False, resolve_path=True),
        help="Spool backend: the shared folder. No default: --backend spool needs it.",
    ),
    option(
        "--spool-ahead",
        group=EXPERT,
        type=click.IntRange(1, 100_000),
        default=BACKEND.spool_ahead,
        help="Spool: requests in the folder for each job that drains it; many for one that travels.",
    ),
    option(
        "--no-sandbox",
        group=DEVICE,
        is_flag=True,
        help="Local backend: run models' kernels even if it cannot isolate them.",
    ),
    option(
        "--gpu",
        group=DEVICE,
        default=BACKEND.gpu,
        help="Modal backend: L4, L40S, H100, ... Spool: the GPU that models are told of.",
    ),
    option(
        "--gpus",
        group=EXPERT,
        type=GpuCount(),
        default=BACKEND.gpus,
        help="Local: GPUs of this machine to use at once. Modal: containers at once.",
    ),
    option("--lane", group=EXPERT, default=BACKEND.lane, help="Modal: a name for containers of your own."),
    option(
        "--warm-minutes",
        group=EXPERT,
        type=Number(0),
        default=BACKEND.warm_minutes,
        help="Modal: minutes that a container is kept after its last use.",
    ),
    option(
        "--start-timeout",
        group=EXPERT,
        type=Number(1),
        default=BACKEND.start_timeout_s,
        help="Modal: seconds to wait for a GPU.",
    ),
)

proposer_options = options(
    option(
        "--proposer",
        type=Name("proposer", ProposerName),
        default=PROPOSER.name,
        help="Who writes kernels: seed kernels with settings varied, a language model, both, a coding agent, "
        "a simulation.",
    ),
    option(
        "--agent",
        group=AGENT,
        type=Name("agent", AgentName),
        help="Claude Code, Codex or OpenCode, as installed here. No default: --proposer agent needs it or "
        "--agent-command.",
    ),
    option(
        "--agent-command",
        group=AGENT,
        default=PROPOSER.agent_command,
        show_default=False,
        help="Any other agent: run in a folder with TASK.md and .mcp.json, TASK.md as its input. No default.",
    ),
    option(
        "--agent-evals",
        group=AGENT,
        type=click.IntRange(1, 1000),
        default=PROPOSER.agent_evals,
        help="Kernels that one agent may have judged for its brief; they count against --max-evals.",
    ),
    option(
        "--agent-minutes",
        group=AGENT,
        type=Number(0, min_open=True),
        default=PROPOSER.agent_minutes,
        help="Minutes after which an agent is ended; what it had submitted by then counts.",
    ),
    option(
        "--model",
        "models",
        group=MODEL,
        type=Models(),
        default=PROPOSER.models,
        show_default=False,
        help="LiteLLM names with weights, openai/gpt-5 for one. No default: --proposer llm needs it.",
    ),
    option(
        "--api-base",
        group=MODEL,
        envvar="KBOPT_API_BASE",
        show_envvar=True,
        help="An OpenAI-compatible endpoint, http://127.0.0.1:8000/v1 for one. Default: the provider's.",
    ),
    option(
        "--prompts",
        group=MODEL,
        type=click.Path(exists=True, file_okay=False),
        help="A folder of prompt templates that replace kbopt's. Default: kbopt's own.",
    ),
    option(
        "--evidence/--no-evidence",
        group=MODEL,
        default=PROPOSER.evidence,
        help="Show the model a profile of the kernel that it is to improve, and of the reference at first. A "
        "profile takes the device between evaluations, when none is under way or after 10 s.",
    ),
    option(
        "--strategies/--no-strategies",
        "uses_strategies",
        group=MODEL,
        default=True,
        help="Ask for another strategy in each question for a first kernel (fusion, tensor cores, split "
        "reductions, ...), those first that fit the profile of the reference.",
    ),
    option(
        "--library",
        group=MODEL,
        type=click.Path(dir_okay=False, resolve_path=True),
        envvar="KBOPT_LIBRARY",
        show_envvar=True,
        help="A TOML file of lessons: models are shown what earlier searches left there, and the search adds "
        "what it taught. Default: none.",
    ),
    option("--no-library", group=MODEL, is_flag=True, help="None, whatever KBOPT_LIBRARY says."),
    option(
        "--language",
        group=MODEL,
        type=Name("language", Language),
        help="What models write. Default: c on a CPU, cuda on a GPU.",
    ),
    option(
        "--embedding-model",
        group=MODEL,
        help="A LiteLLM embedding model for epsNet. Default: a local embedder, at no cost.",
    ),
    option(
        "--request-timeout",
        group=MODEL,
        type=Number(1),
        default=PROPOSER.timeout_s,
        help="Seconds that a model may take for one answer.",
    ),
)


many_options = options(
    option(
        "--explorers",
        type=click.IntRange(1, 1024),
        default=8,
        help="Proposals made at the same time, in all.",
    ),
    option(
        "--parallel-searches", type=click.IntRange(1), default=8, help="Searches under way at the same time."
    ),
)
"""How much of a sweep happens at once."""


def _with_wandb(_: click.Context, __: click.Parameter, value: bool) -> bool:
    if value:
        require("wandb", "--use-wandb")
    return value


wandb_options = options(
    option("--use-wandb", group=EXPERT, is_flag=True, callback=_with_wandb, help="Log to Weights & Biases."),
    option("--project-name", "--project", group=EXPERT, default="kbopt", help="The W&B project."),
    option(
        "--wandb-mode",
        group=EXPERT,
        type=Name("mode", Literal["online", "offline"]),
        help="Default: WANDB_MODE, else online.",
    ),
)
