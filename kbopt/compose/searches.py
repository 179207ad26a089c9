"""A search as the actors are handed it, and what its settings imply."""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path

from kbopt.cluster.messages import Factories, SearchSpec
from kbopt.compose.backends import open_backend, rent_text
from kbopt.compose.proposers import build_embedder, build_proposer, build_summarizer, lease_s
from kbopt.config import BackendConfig, ProposerConfig, RunConfig
from kbopt.core.text import plural


def factories(backend: BackendConfig, proposer: ProposerConfig, folder: Path) -> Factories:
    """How the actors build their parts. Pickled to them, so everything in it is a module's function.

    `folder` is the run's or the sweep's: with it a resumed run is the same owner of a remote backend's work.
    Raises `UserError` for a stored proposer whose secrets the environment does not have.
    """
    proposer = proposer.with_secrets
    owner = hashlib.sha256(f"{platform.node()}:{folder.resolve()}".encode()).hexdigest()[:16]
    if backend.name == "spool":
        from kbopt.backends.spool import kept_owner

        owner = kept_owner(folder)
    needs_sandbox = ("llm" in proposer.name or proposer.name == "agent") and not backend.no_sandbox
    return Factories(
        backend=functools.partial(open_backend, backend, owner, needs_sandbox=needs_sandbox),
        proposer=functools.partial(build_proposer, proposer, backend),
        summarizer=functools.partial(build_summarizer, proposer, backend),
        embedder=functools.partial(build_embedder, proposer),
    )


def search_spec(config: RunConfig, folder: Path, *, shares_results: bool = False) -> SearchSpec:
    """The search of `config` with its journal under `folder`."""
    return SearchSpec(
        name=config.name,
        folder=folder,
        task=config.task,
        settings=config.settings,
        protocol=config.protocol,
        shares_results=shares_results,
        kernelbench=config.verdict != "strict",
        lease_s=lease_s(config.proposer),
        evidence=config.proposer.evidence and config.proposer.asks_models,
        lessons=config.lessons,
    )


def preflight(config: RunConfig) -> str:
    """What the settings imply, in a line: proposals, tokens and dollars of models, a container's price."""
    if "llm" in config.proposer.name:
        from kbopt.proposers.models import parse_models
        from kbopt.proposers.preflight import preflight as model_preflight

        proposals = model_preflight(config.settings, parse_models(config.proposer.models))
    elif config.proposer.starts_agents:
        who, briefs = config.proposer, config.settings.num_total_proposals
        proposals = (
            f"{plural(briefs, 'brief')}, each for an agent of at most {who.agent_evals} "
            f"evaluations and {who.agent_minutes:g} minutes, at that agent's price"
        )
    else:
        proposals = (
            f"{plural(config.settings.num_total_proposals, 'proposal')} by {config.proposer.name}, at no cost"
        )
    return "; ".join(filter(None, (proposals, rent_text(config.backend))))
