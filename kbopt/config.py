"""What a run is told to do, and the one place that names concrete backends, proposers and embedders."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kbopt.cluster.messages import Factories, SearchSpec
from kbopt.core.errors import UserError
from kbopt.core.ports import Backend, Embedder, Proposer, Summarizer
from kbopt.core.settings import SearchSettings
from kbopt.core.types import EvalProtocol, Task

BackendName = Literal["local", "modal", "simulated"]
ProposerName = Literal["tunables", "llm", "llm+tunables", "simulated"]
Language = Literal["c", "cuda", "triton", "nvrtc"]
DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """Which device judges. `device` is for the local backend, the rest for Modal.

    `gpus` containers share the work; each `lane` has containers of its own.
    """

    name: BackendName = "local"
    device: str = "auto"
    gpu: str = "L40S"
    gpus: int = 1
    lane: str = "shared"
    warm_minutes: float = 10.0
    start_timeout_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerConfig:
    """Who writes kernels. `models` is `name[:weight],...`; `language` empty means: fit the device."""

    name: ProposerName = "tunables"
    models: str = ""
    api_base: str | None = None
    prompts: str | None = None
    language: Language | None = None
    embedding_model: str | None = None
    max_concurrent: int = 16
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One search with everything it needs: what a journal's header holds and `kbopt resume` reads."""

    name: str
    task: Task
    settings: SearchSettings = SearchSettings()
    protocol: EvalProtocol = EvalProtocol()
    backend: BackendConfig = BackendConfig()
    proposer: ProposerConfig = ProposerConfig()
    explorers: int = 4


def cache_home() -> Path:
    """Where builds and baselines are kept between runs: `KBOPT_CACHE`, else the user's cache folder."""
    if "KBOPT_CACHE" in os.environ:
        return Path(os.environ["KBOPT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kbopt"


def open_backend(config: BackendConfig) -> Backend:
    """The backend that `config` names, not yet opened."""
    match config.name:
        case "local":
            from kbopt.backends.local import LocalBackend

            return LocalBackend(device=config.device, state_dir=cache_home() / "evaluation")
        case "modal":
            from kbopt.backends.modal_client import ModalBackend

            return ModalBackend(
                gpu=config.gpu,
                gpus=config.gpus,
                lane=config.lane,
                warm_minutes=config.warm_minutes,
                start_timeout_s=config.start_timeout_s,
            )
        case "simulated":
            from kbopt.simulated import SimulatedBackend

            return SimulatedBackend()


def device_kind(config: BackendConfig) -> DeviceKind:
    """The kind of kernel that `config`'s device runs."""
    if config.name == "modal" or config.device.startswith("cuda"):
        return "cuda"
    if config.device == "auto" and Path("/dev/nvidiactl").exists():
        return "cuda"
    return "cpu"


def factories(backend: BackendConfig, proposer: ProposerConfig) -> Factories:
    """How the actors build their parts. Pickled to them, so everything in it is a module's function."""
    kind = device_kind(backend)
    return Factories(
        backend=functools.partial(open_backend, backend),
        proposer=functools.partial(build_proposer, proposer, kind),
        summarizer=functools.partial(build_summarizer, proposer, kind),
        embedder=functools.partial(build_embedder, proposer),
    )


def search_spec(config: RunConfig, folder: Path) -> SearchSpec:
    """The search of `config` with its journal under `folder`."""
    return SearchSpec(
        name=config.name, folder=folder, task=config.task, settings=config.settings, protocol=config.protocol
    )


def check(config: RunConfig) -> None:
    """Raise `UserError` for what would only fail after a device was started."""
    if config.proposer.name == "tunables":
        from kbopt.proposers.tunables import check_seeds

        check_seeds(config.task, device_kind(config.backend))
    if "llm" in config.proposer.name:
        from kbopt.proposers.llm import check_model_access, parse_models

        if not config.proposer.models:
            raise UserError(f"--proposer {config.proposer.name} needs --model, e.g. --model openai/gpt-5")
        check_model_access(parse_models(config.proposer.models), config.proposer.api_base)
    if config.backend.name == "modal":
        from kbopt.backends.modal_client import check_gpu, check_token

        check_gpu(config.backend.gpu)
        check_token()


def build_proposer(config: ProposerConfig, kind: DeviceKind, spec: SearchSpec) -> Proposer:
    """The proposer that `config` names, for kernels of `kind`."""
    match config.name:
        case "tunables":
            return _tunables(kind)
        case "llm":
            return _llm(config, kind, spec)
        case "llm+tunables":
            from kbopt.proposers.mixed import MixedProposer

            return MixedProposer(_llm(config, kind, spec), _tunables(kind))
        case "simulated":
            from kbopt.simulated import SimulatedProposer

            return SimulatedProposer()


def build_summarizer(config: ProposerConfig, kind: DeviceKind, spec: SearchSpec) -> Summarizer:
    """The model's summaries where there is a model, else those computed from the trials."""
    if "llm" in config.name:
        from kbopt.proposers.llm_summary import LLMSummarizer

        return LLMSummarizer(_llm(config, kind, spec))
    from kbopt.proposers.journal_summary import JournalSummarizer

    return JournalSummarizer()


def build_embedder(config: ProposerConfig, _: SearchSpec) -> Embedder:
    """The local embedder, or the model's by `--embedding-model`."""
    if config.embedding_model:
        from kbopt.proposers.model_embedding import ModelEmbedder

        return ModelEmbedder(config.embedding_model, api_base=config.api_base)
    from kbopt.core.embedding import LocalEmbedder

    return LocalEmbedder()


def transcripts(folder: Path) -> Path:
    """Where the requests to language models and their answers are kept."""
    return folder / "transcripts"


def _tunables(kind: DeviceKind) -> Proposer:
    from kbopt.proposers.tunables import TunablesProposer

    return TunablesProposer(device_kind=kind)
