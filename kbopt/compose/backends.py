"""Opens the backend that a configuration names, and says what its device is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kbopt.config import ALL_GPUS, BackendConfig, device_kind, num_gpus
from kbopt.core.errors import UserError
from kbopt.core.extras import require
from kbopt.core.ports import Backend
from kbopt.core.text import plural

if TYPE_CHECKING:
    from kbopt.backends.local import LocalBackend


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
            if config.gpus != 1:
                from kbopt.backends.pool import local_pool

                # Where there is none, the service of the first says so.
                gpus = max(1, num_gpus()) if config.gpus == ALL_GPUS else config.gpus
                return local_pool(gpus, cache_home() / "evaluation", needs_sandbox=needs_sandbox)
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


def rent_text(config: BackendConfig) -> str:
    """What the device is rented for, in words; empty where evaluations are at no cost."""
    if config.name != "modal":
        return ""
    from kbopt.backends.modal_client import usd_per_second

    held = plural(config.gpus, f"{config.gpu} container")
    return f"{held} for ${3600 * config.gpus * usd_per_second(config.gpu):.2f} an hour"


def prepare_backend(config: BackendConfig, say: Callable[[str], None]) -> None:
    """What must happen in the driver before the actors start: the Modal app's deployment, which may build."""
    if config.name == "modal":
        from kbopt.backends.modal_client import ensure_deployed

        say(f"Modal app {ensure_deployed(warm_minutes=config.warm_minutes, on_output=say)}")


def check_spool(config: BackendConfig) -> Path:
    """The folder of the spool backend. Raises `UserError` where none is named."""
    if not config.spool:
        raise UserError("--backend spool needs --spool DIR, a folder that the machine with the GPU sees too")
    return Path(config.spool)


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
