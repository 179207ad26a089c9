"""Builds the proposer that a configuration names, and what summarizes and embeds beside it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kbopt.cluster.messages import LEASE_S, SearchSpec
from kbopt.compose.backends import device_facts
from kbopt.config import BackendConfig, ProposerConfig, device_kind, transcripts, workspaces
from kbopt.core.errors import UserError
from kbopt.core.extras import require
from kbopt.core.kernel_strategies import KernelStrategy
from kbopt.core.languages import Language
from kbopt.core.ports import Attempts, Embedder, Proposer, Summarizer

if TYPE_CHECKING:
    from kbopt.proposers.agent import AgentCommand
    from kbopt.proposers.llm import LLMProposer

ENDS_S = 300.0
"""Seconds that a brief takes beside what its agent or model may take: evidence, pauses, the agent's end."""


def strategies(proposer: ProposerConfig, backend: BackendConfig) -> tuple[KernelStrategy, ...]:
    """What first briefs may ask models and agents for; nothing of other proposers, which do not read."""
    if not proposer.asks_models:
        return ()
    from kbopt.proposers.strategies import load_strategies

    folder = Path(proposer.prompts) if proposer.prompts else None
    return load_strategies(folder, language_of(proposer, backend))


def lease_s(config: ProposerConfig) -> float:
    """How long an explorer may take for one brief: an agent its time, a model all that may be asked of it.

    A brief that is handed out again while a model still answers is asked and paid for twice.
    """
    if config.starts_agents:
        return max(LEASE_S, 60 * config.agent_minutes + ENDS_S)
    if "llm" in config.name:
        from kbopt.proposers.llm import MAX_REPEATED_QUESTIONS
        from kbopt.proposers.pool import MAX_TIMEOUTS

        return max(LEASE_S, (1 + MAX_REPEATED_QUESTIONS) * MAX_TIMEOUTS * config.timeout_s + ENDS_S)
    return LEASE_S


def agent_command(config: ProposerConfig, *, on_this_machine: bool = True) -> AgentCommand:
    """The agent that `config` names. Raises `UserError` where it or its MCP server is not installed."""
    from kbopt.proposers.agent import AgentCommand
    from kbopt.proposers.agent_presets import PRESETS, WRITABLE

    require("mcp", "--proposer agent")
    if config.agent and config.agent_command:
        raise UserError(f"--agent {config.agent} and --agent-command both name an agent: give one")
    words = PRESETS[config.agent] if config.agent else tuple(shlex.split(config.agent_command))
    if not words or (on_this_machine and shutil.which(words[0]) is None):
        named = f"--agent {config.agent}" if config.agent else f"--agent-command {config.agent_command!r}"
        if words and Path(words[0]).is_file():
            raise UserError(
                f"{named}: {words[0]} is not executable. Make it so with chmod +x, or begin the command with "
                "what runs it, such as python."
            )
        raise UserError(
            f"{named}: there is no program {words[0] if words else ''!r} on the PATH. Install it, or give "
            "its whole path with --agent-command."
        )
    return AgentCommand(
        name=config.agent or Path(words[0]).name,
        words=words,
        writable=WRITABLE[config.agent] if config.agent else (),
        max_evals=config.agent_evals,
        limit_s=60 * config.agent_minutes,
    )


def build_proposer(
    config: ProposerConfig, backend: BackendConfig, spec: SearchSpec, attempts: Attempts
) -> Proposer:
    """The proposer that `config` names, for kernels that run on `backend`."""
    proposer = _proposer(config, backend, spec, attempts)
    if not config.starts:
        return proposer
    from kbopt.proposers.starts import StartingProposer

    return StartingProposer(config.starts, proposer)


def _proposer(
    config: ProposerConfig, backend: BackendConfig, spec: SearchSpec, attempts: Attempts
) -> Proposer:
    match config.name:
        case "tunables":
            return _tunables(config, backend)
        case "llm":
            return _llm(config, backend, spec)
        case "llm+tunables":
            from kbopt.proposers.mixed import MixedProposer

            return MixedProposer(_llm(config, backend, spec), _tunables(config, backend))
        case "simulated":
            from kbopt.simulated import Latency, SimulatedProposer

            return SimulatedProposer(latency=Latency(mean_s=config.simulated_s))
        case "agent":
            from kbopt.proposers.agent import AbsentAgent, AgentProposer

            if not config.starts_agents:
                return AbsentAgent()
            return AgentProposer(
                agent_command(config),
                attempts,
                folder=workspaces(spec.folder),
                transcripts=transcripts(spec.folder),
                prompts=Path(config.prompts) if config.prompts else None,
                language=language_of(config, backend),
                device_facts=device_facts(backend),
                lessons=spec.lessons,
                backward=spec.protocol.backward,
            )


def build_summarizer(config: ProposerConfig, backend: BackendConfig, spec: SearchSpec) -> Summarizer:
    """The model's summaries where there is a model, else those computed from the trials."""
    if "llm" in config.name:
        from kbopt.proposers.llm_summary import LLMSummarizer

        return LLMSummarizer(_llm(config, backend, spec), spec.task)
    from kbopt.proposers.journal_summary import JournalSummarizer

    return JournalSummarizer()


def build_embedder(config: ProposerConfig, _: SearchSpec) -> Embedder:
    """The local embedder, or the model's by `--embedding-model`."""
    if config.embedding_model:
        from kbopt.proposers.model_embedding import ModelEmbedder

        return ModelEmbedder(config.embedding_model, api_base=config.api_base)
    from kbopt.core.embedding import LocalEmbedder

    return LocalEmbedder()


def language_of(config: ProposerConfig, backend: BackendConfig) -> Language:
    """What models write: what is named, else C on a CPU and CUDA on a GPU."""
    return config.language or ("c" if device_kind(backend) == "cpu" else "cuda")


def _tunables(config: ProposerConfig, backend: BackendConfig) -> Proposer:
    from kbopt.proposers.tunables import TunablesProposer

    return TunablesProposer(device_kind=device_kind(backend), starts=config.starts)


def _llm(config: ProposerConfig, backend: BackendConfig, spec: SearchSpec) -> LLMProposer:
    from kbopt.proposers.llm import LLMProposer
    from kbopt.proposers.models import parse_models

    return LLMProposer(
        models=parse_models(config.models),
        api_base=config.api_base,
        prompts=Path(config.prompts) if config.prompts else None,
        language=language_of(config, backend),
        device_facts=device_facts(backend),
        backward=spec.protocol.backward,
        arithmetic=spec.protocol.arithmetic,
        tunes=config.name == "llm+tunables",
        transcripts=transcripts(spec.folder),
        lessons=spec.lessons,
        max_concurrent=config.max_concurrent,
        timeout_s=config.timeout_s,
    )
