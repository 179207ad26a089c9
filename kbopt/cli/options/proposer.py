"""The options of who writes kernels."""

from __future__ import annotations

import click

from kbopt.cli.grouped import AGENT, MODEL, option, options
from kbopt.cli.values import Name, Number
from kbopt.config import AgentName, ProposerConfig, ProposerName
from kbopt.core.languages import Language

PROPOSER = ProposerConfig()

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
        metavar="NAME[:WEIGHT],...",
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
