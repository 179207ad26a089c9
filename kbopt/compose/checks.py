"""What is refused before a run's folder is made and a device started."""

from __future__ import annotations

import re
from pathlib import Path

from kbopt.compose.backends import check_spool
from kbopt.compose.proposers import agent_command, language_of
from kbopt.config import (
    ALL_GPUS,
    BackendConfig,
    BackendName,
    ProposerConfig,
    ProposerName,
    RunConfig,
    device_kind,
    has_cuda,
    num_gpus,
)
from kbopt.core.errors import UserError
from kbopt.core.extras import require
from kbopt.core.languages import PACKAGES, Language, has_module, missing
from kbopt.core.task import Task


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
        _check_language(language_of(config.proposer, config.backend), config.backend, on_this_machine)
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
        number = "all" if config.gpus == ALL_GPUS else str(config.gpus)
        last = "the last" if config.gpus == ALL_GPUS else f"cuda:{config.gpus - 1}"
        raise UserError(
            f"--gpus {number} and --device {config.device}: the devices are cuda:0 to {last} then; leave one "
            "of the two options out"
        )
    if on_this_machine and config.gpus > num_gpus():
        raise UserError(
            f"--gpus {config.gpus}: this machine has {num_gpus()}; give fewer, or --gpus all, or "
            "--backend modal"
        )


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
