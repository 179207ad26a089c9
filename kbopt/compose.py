"""The composition root: the one place that names concrete backends, proposers and embedders."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kbopt.cluster.messages import LEASE_S, Factories, SearchSpec
from kbopt.config import (
    BackendConfig,
    BackendName,
    ProposerConfig,
    ProposerName,
    RunConfig,
    device_kind,
    has_cuda,
    num_gpus,
    transcripts,
    workspaces,
)
from kbopt.core.errors import UserError
from kbopt.core.events import Event
from kbopt.core.extras import require
from kbopt.core.kernel_strategies import KernelStrategy
from kbopt.core.languages import PACKAGES, Language, has_module, missing
from kbopt.core.ports import Attempts, Backend, Embedder, Proposer, Summarizer
from kbopt.core.task import Task

if TYPE_CHECKING:
    from kbopt.backends.local import LocalBackend
    from kbopt.proposers.agent import AgentCommand
    from kbopt.proposers.llm import LLMProposer


ENDS_S = 300.0
"""Seconds that a brief takes beside what its agent or model may take: evidence, pauses, the agent's end."""


def cache_home() -> Path:
    """Where builds and baselines are kept between runs: `KBOPT_CACHE`, else the user's cache folder."""
    if "KBOPT_CACHE" in os.environ:
        return Path(os.environ["KBOPT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kbopt"


def open_backend(
    config: BackendConfig, owner: str = "", *, needs_sandbox: bool = False, keeps_refusals: bool = False
) -> Backend:
    """The backend that `config` names, not yet opened.

    With `needs_sandbox` the local one refuses to be opened where it has none.
    A Modal or spool backend that is opened again with the same `owner` joins the evaluations that it left
    behind. With `keeps_refusals` a spool's answer that a task cannot be scored counts among them.
    """
    match config.name:
        case "local":
            if config.gpus > 1:
                from kbopt.backends.pool import local_pool

                return local_pool(config.gpus, cache_home() / "evaluation", needs_sandbox=needs_sandbox)
            return open_local(config.device, needs_sandbox=needs_sandbox)
        case "modal":
            require("modal", "--backend modal")
            from kbopt.backends.modal_client import ModalBackend

            return ModalBackend(
                gpu=config.gpu,
                gpus=config.gpus,
                lane=config.lane,
                warm_minutes=config.warm_minutes,
                start_timeout_s=config.start_timeout_s,
                owner=owner,
            )
        case "spool":
            from kbopt.backends.spool import SpoolBackend

            return SpoolBackend(
                check_spool(config),
                owner=owner,
                device=config.device,
                ahead=config.spool_ahead,
                keeps_refusals=keeps_refusals,
            )
        case "simulated":
            from kbopt.simulated import SimulatedBackend

            return SimulatedBackend(service_s=config.simulated_s)


def open_local(device: str, *, needs_sandbox: bool = False) -> LocalBackend:
    """The backend of a device of this machine, not yet opened, which can also describe tasks."""
    from kbopt.backends.local import LocalBackend

    state_dir = cache_home() / "evaluation"
    return LocalBackend(device=device, state_dir=state_dir, needs_sandbox=needs_sandbox)


def prepare_backend(config: BackendConfig, say: Callable[[str], None]) -> None:
    """What must happen in the driver before the actors start: the Modal app's deployment, which may build."""
    if config.name == "modal":
        from kbopt.backends.modal_client import ensure_deployed

        say(f"Modal app {ensure_deployed(warm_minutes=config.warm_minutes, on_output=say)}")


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


def strategies(proposer: ProposerConfig, backend: BackendConfig) -> tuple[KernelStrategy, ...]:
    """What first briefs may ask models and agents for; nothing of other proposers, which do not read."""
    if not proposer.asks_models:
        return ()
    from kbopt.proposers.strategies import load_strategies

    folder = Path(proposer.prompts) if proposer.prompts else None
    return load_strategies(folder, _language(proposer, backend))


def with_lessons(config: RunConfig) -> RunConfig:
    """`config` with what its library has for its task. Raises `UserError` where that cannot be used."""
    if not config.proposer.library:
        return config
    from kbopt.core.lessons import shown
    from kbopt.store.lessons import read_lessons

    library = Path(config.proposer.library)
    if not library.parent.is_dir():
        raise UserError(
            f"--library {library}: there is no folder {library.parent}. Make it, or name another file."
        )
    lessons = shown(
        read_lessons(library),
        task=config.task.name,
        family=config.task.family,
        language=_language(config.proposer, config.backend),
        device_facts=device_facts(config.backend),
    )
    return replace(config, lessons=lessons)


def add_to_library(config: RunConfig, events: Iterable[Event]) -> int:
    """Have the library keep what the search's journal teaches; how many lessons were new."""
    from kbopt.core.lessons import lessons_of
    from kbopt.store.lessons import add_lessons

    found = lessons_of(
        events,
        task=config.task.name,
        family=config.task.family,
        language=_language(config.proposer, config.backend),
        run=config.name,
        date=datetime.date.today().isoformat(),
    )
    return add_lessons(Path(config.proposer.library), found)


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


def check(config: RunConfig, *, on_this_machine: bool = True) -> None:
    """Raise `UserError` for what would only fail after a run's folder was made and a device started.

    A local device is looked for unless the evaluator runs on another machine.
    """
    check_simulated(config.task, config.backend.name, config.proposer.name)
    if config.backend.name == "local":
        check_device(config.backend.device, on_this_machine=on_this_machine)
        check_gpus(config.backend, on_this_machine=on_this_machine)
    elif config.backend.name == "spool" and on_this_machine:
        from kbopt.evaluation.spool.files import open_spool

        open_spool(check_spool(config.backend), create=True)
    if config.proposer.name == "tunables" and config.proposer.starts:
        from kbopt.proposers.starts import check_starts

        check_starts(config.proposer.starts)
    elif config.proposer.name == "tunables":
        if config.protocol.backward:
            raise UserError(
                "--backward needs kernels with gradients, and the seed kernels that ship with kbopt compute "
                "forward alone. Give one of your own with --start FILE, or choose --proposer llm or agent."
            )
        from kbopt.proposers.seeds import check_seeds

        check_seeds(config.task, device_kind(config.backend))
    if config.proposer.asks_models:
        _check_language(_language(config.proposer, config.backend), config.backend, on_this_machine)
    if "llm" in config.proposer.name:
        _check_models(config.proposer)
    if config.proposer.starts_agents:
        agent_command(config.proposer, on_this_machine=on_this_machine)
        if config.settings.synchronous:
            raise UserError(
                "--synchronous and --proposer agent do not go together: an agent has kernels judged between "
                "the steps. Leave --synchronous out."
            )
    if config.backend.name == "modal":
        require("modal", "--backend modal")
        from kbopt.backends.modal_client import check_gpu, check_token

        check_gpu(config.backend.gpu)
        check_token()


def check_spool(config: BackendConfig) -> Path:
    """The folder of the spool backend. Raises `UserError` where none is named."""
    if not config.spool:
        raise UserError("--backend spool needs --spool DIR, a folder that the machine with the GPU sees too")
    return Path(config.spool)


def check_simulated(task: Task, backend: BackendName, proposer: ProposerName | None = None) -> None:
    """Raise `UserError` unless a simulated task meets the simulated device, and a proposer that knows it.

    A language model or an agent may propose for either; None asks nothing of a proposer.
    """
    simulated = task.family == "simulated"
    own = ("simulated",) if simulated else ("tunables", "llm+tunables")
    proposers = (*own, "llm", "agent", None)
    if (backend == "simulated") != simulated or proposer not in proposers:
        named = f"--task {task.name}, --backend {backend}" + (f", --proposer {proposer}" if proposer else "")
        raise UserError(
            f"{named} do not go together: a simulation needs --task sim/NAME, --backend simulated and "
            "--proposer simulated, and any other task none of these."
        )


def check_device(device: str, *, on_this_machine: bool = True) -> None:
    """Raise `UserError` for a device that does not exist, without importing torch."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device {device!r}: there is auto, cpu, cuda, and cuda:N for the N-th GPU from 0")
    if on_this_machine and device.startswith("cuda") and not has_cuda():
        raise UserError(
            f"--device {device}: this machine has no NVIDIA driver, or its torch is built without CUDA. Use "
            "--device cpu, or --backend modal; `kbopt doctor` says more."
        )


def check_gpus(config: BackendConfig, *, on_this_machine: bool = True) -> None:
    """Raise `UserError` where the local backend is to use more GPUs than there are, or one that is named."""
    if config.gpus == 1:
        return
    if config.device not in ("auto", "cuda"):
        raise UserError(
            f"--gpus {config.gpus} and --device {config.device}: the devices are cuda:0 to "
            f"cuda:{config.gpus - 1} then; leave one of the two options out"
        )
    if on_this_machine and config.gpus > num_gpus():
        raise UserError(
            f"--gpus {config.gpus}: this machine has {num_gpus()}; give fewer, or --gpus all, or "
            "--backend modal"
        )


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
                language=_language(config, backend),
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


def preflight(config: RunConfig) -> str:
    """What the settings imply, in a line: proposals, tokens and dollars of models, a container's price."""
    if "llm" in config.proposer.name:
        from kbopt.proposers.models import parse_models
        from kbopt.proposers.preflight import preflight as model_preflight

        proposals = model_preflight(config.settings, parse_models(config.proposer.models))
    elif config.proposer.starts_agents:
        who, briefs = config.proposer, config.settings.num_total_proposals
        proposals = (
            f"{briefs} brief{'s' * (briefs > 1)}, each for an agent of at most {who.agent_evals} "
            f"evaluations and {who.agent_minutes:g} minutes, at that agent's price"
        )
    else:
        proposals = f"{config.settings.num_total_proposals} proposals by {config.proposer.name}, at no cost"
    if config.backend.name != "modal":
        return proposals
    from kbopt.backends.modal_client import usd_per_second

    gpu, gpus = config.backend.gpu, config.backend.gpus
    held = f"{gpus} {gpu} container{'s' if gpus > 1 else ''}"
    return f"{proposals}; {held} for ${3600 * gpus * usd_per_second(gpu):.2f} an hour"


def _check_models(config: ProposerConfig) -> None:
    from kbopt.proposers.access import check_model_access
    from kbopt.proposers.models import parse_models
    from kbopt.proposers.prompt import Prompts

    if not config.models:
        raise UserError(f"--proposer {config.name} needs --model, e.g. --model openai/gpt-5")
    check_model_access(parse_models(config.models), config.api_base)
    if config.embedding_model:
        check_model_access(parse_models(config.embedding_model), config.api_base)
    Prompts.load(Path(config.prompts) if config.prompts else None)


def device_facts(config: BackendConfig) -> str:
    """What a language model is told of the device."""
    if config.name == "modal":
        return f"One NVIDIA {config.gpu}."
    if config.name == "spool" and device_kind(config) == "cuda":
        return f"One NVIDIA {config.gpu or 'GPU'}."
    if device_kind(config) == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv"]
        try:
            return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # not installed in every container
            return "One NVIDIA GPU."
    if config.name == "spool":
        return "The cores of another machine."
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}."


def _language(config: ProposerConfig, backend: BackendConfig) -> Language:
    return config.language or ("c" if device_kind(backend) == "cpu" else "cuda")


def _check_language(language: Language, backend: BackendConfig, on_this_machine: bool) -> None:
    """Raises `UserError` where kernels are judged without the packages that the language's kernels import, as
    far as that can be told from here.
    """
    if backend.name == "local" and on_this_machine:
        package = missing(language, has_module)
        if package is not None:
            raise UserError(
                f"--language {language}: {package.name} is not installed here. {package.remedy}, or choose "
                "another language."
            )
    if backend.name == "modal" and language in PACKAGES:
        require("modal", "--backend modal")
        from kbopt.backends.modal_app import LANGUAGES_VARIABLE, languages

        if language not in languages():
            allowed = ",".join((*languages(), language))
            raise UserError(
                f"--language {language}: Modal's image is without {PACKAGES[language].name}. Set "
                f"{LANGUAGES_VARIABLE}={allowed}, which builds another image, or choose another language."
            )


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
        language=_language(config, backend),
        device_facts=device_facts(backend),
        backward=spec.protocol.backward,
        arithmetic=spec.protocol.arithmetic,
        tunes=config.name == "llm+tunables",
        transcripts=transcripts(spec.folder),
        lessons=spec.lessons,
        max_concurrent=config.max_concurrent,
        timeout_s=config.timeout_s,
    )
