"""What a run is told to do: plain data, light to import, kept as JSON in the journal's header."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kbopt.core.errors import UserError
from kbopt.core.languages import Language
from kbopt.core.protocol import EvalProtocol, Verdict
from kbopt.core.redaction import REDACTED, redact
from kbopt.core.settings import SearchSettings
from kbopt.core.task import Seed, Task

BackendName = Literal["local", "modal", "spool", "simulated"]
ProposerName = Literal["tunables", "llm", "llm+tunables", "agent", "simulated"]
"""Who may write kernels. An agent without a command is one that asked for itself, through `kbopt mcp`."""

AgentName = Literal["claude", "codex", "opencode"]
"""Agents that kbopt knows how to start."""

DeviceKind = Literal["cpu", "cuda"]

ALL_GPUS = 0
"""`--gpus all` on a cluster: the machine of the evaluator says how many it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """Which device judges. `device` is for the local backend, `simulated_s` for the simulated one.

    `no_sandbox` lets the local one run language models' kernels where this machine cannot isolate them.
    `spool` is the folder in which the spool backend asks, with `spool_ahead` requests for each job that
    drains it; its `device` says for which kind of device kernels are written, a GPU unless it is `cpu`.

    `gpus` devices share the work: GPUs of the evaluator's machine for the local backend, `ALL_GPUS` for as
    many as it has, and containers of Modal. The rest is for Modal: each `lane` has containers of its own.
    """

    name: BackendName = "local"
    device: str = "auto"
    no_sandbox: bool = False
    spool: str = ""
    spool_ahead: int = 16
    gpu: str = "L40S"
    gpus: int = 1
    lane: str = "shared"
    warm_minutes: float = 10.0
    start_timeout_s: float = 900.0
    simulated_s: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerConfig:
    """Who writes kernels. `models` is `name[:weight],...`; `language` None means: fit the device.

    `starts` are the user's own kernels, in place of those that ship with kbopt. `api_base` may hold a key in
    its query, in its path or before its host: it is stored `without_secrets`. `timeout_s` is the limit of one
    request to a model, `simulated_s` the mean latency of the simulated proposer. With `evidence` a model is
    shown a profile of the kernel that it is to improve, where the backend has profiles. `library` is the file
    of lessons that the search reads and adds to, empty for none. An agent is one that kbopt knows, or a
    command as a shell would split it; it may have `agent_evals` kernels judged for one brief, within
    `agent_minutes`.
    """

    name: ProposerName = "tunables"
    starts: tuple[Seed, ...] = ()
    models: str = ""
    api_base: str | None = None
    prompts: str | None = None
    evidence: bool = True
    library: str = ""
    language: Language | None = None
    embedding_model: str | None = None
    max_concurrent: int = 16
    timeout_s: float = 300.0
    agent: AgentName | None = None
    agent_command: str = ""
    agent_evals: int = 10
    agent_minutes: float = 30.0
    simulated_s: float = 0.05

    @property
    def starts_agents(self) -> bool:
        """Whether each brief is given to an agent that kbopt starts."""
        return bool(self.agent or self.agent_command)

    @property
    def asks_models(self) -> bool:
        """Whether a language model or an agent reads the briefs."""
        return "llm" in self.name or self.starts_agents

    @property
    def without_secrets(self) -> ProposerConfig:
        """As it is stored and shown."""
        return replace(self, api_base=self.api_base and redact(self.api_base, os.environ))

    @property
    def with_secrets(self) -> ProposerConfig:
        """As requests need it: what was not stored is read from the environment's KBOPT_API_BASE.

        Raises `UserError` where that is not set, or is the address of another server.
        """
        if self.api_base is None or REDACTED not in self.api_base:
            return self
        whole = os.environ.get("KBOPT_API_BASE", "")
        shape = ".+".join(map(re.escape, self.api_base.split(REDACTED)))
        if not re.fullmatch(shape, whole):
            raise UserError(
                f"the model server's address {self.api_base} held a secret, which is not stored, and "
                f"KBOPT_API_BASE is {f'of another server: {whole}' if whole else 'not set'}. "
                "Set it to the whole address (export KBOPT_API_BASE=URL) and start again."
            )
        return replace(self, api_base=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One search with everything it needs: what a journal's header holds and `kbopt resume` reads.

    `lessons` are what its library had for it when it began. Unless `verdict` is `strict`, KernelBench's own
    is asked for each measurement, not for the winner alone.
    """

    name: str
    task: Task
    settings: SearchSettings = SearchSettings()
    protocol: EvalProtocol = EvalProtocol()
    backend: BackendConfig = BackendConfig()
    proposer: ProposerConfig = ProposerConfig()
    explorers: int = 4
    verdict: Verdict = "strict"
    lessons: str = ""

    @property
    def without_secrets(self) -> RunConfig:
        """As it is stored and shown."""
        return replace(self, proposer=self.proposer.without_secrets)


def device_kind(config: BackendConfig) -> DeviceKind:
    """The kind of kernel that `config`'s device runs."""
    if config.name == "modal":
        # The container reads the same variable: only the tests' loopback control plane has no GPUs.
        return "cpu" if os.environ.get("KBOPT_MODAL_DEVICE") == "cpu" else "cuda"
    if config.device.startswith("cuda") or (config.name == "local" and config.gpus != 1):
        return "cuda"
    if config.name == "spool":
        return "cpu" if config.device == "cpu" else "cuda"
    return "cuda" if config.device == "auto" and has_cuda() else "cpu"


def has_cuda() -> bool:
    """Whether torch would find a GPU here: an NVIDIA driver, and a torch that is built for CUDA.

    Reads the one file of torch that says so: importing it takes seconds.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None or not Path("/dev/nvidiactl").exists():
        return False
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return (
        not hidden and runpy.run_path(str(Path(torch.origin).with_name("version.py"))).get("cuda") is not None
    )


def num_gpus(files: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs of this machine may be used: those of CUDA_VISIBLE_DEVICES where it is set."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return sum(bool(name.strip()) and name.strip() != "-1" for name in chosen.split(","))
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in files.glob("nvidia*"))


def transcripts(folder: Path) -> Path:
    """Where the requests to language models and their answers, and what agents printed, are kept."""
    return folder / "transcripts"


def workspaces(folder: Path) -> Path:
    """Where each brief that an agent answers has a folder."""
    return folder / "agents"
