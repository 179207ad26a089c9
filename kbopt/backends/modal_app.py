"""The Modal app: the image, and the class with one warm container for each GPU type and lane.

`modal deploy -m kbopt.backends.modal_app --name NAME` deploys it, which `kbopt.backends.modal_deploy` does
under a name made from the content. Drivers choose only `gpu` and `lane`: Modal scales each set of options
separately, so another timeout would mean a second GPU. For the same reason the warm time is part of the
deployment: KBOPT_MODAL_WARM_S is read when the app is deployed. So are KBOPT_MODAL_LANGUAGES, the languages
whose packages the image has beside torch and Triton.
"""

# No `from __future__ import annotations`: Modal reads the types of parameters from the class itself.
import os
import tempfile
from pathlib import Path

import modal
import modal.experimental

from kbopt.backends.modal_container import ModalContainer, answer
from kbopt.backends.modal_wire import Message
from kbopt.core.errors import UserError
from kbopt.core.languages import PACKAGES, Language

DEFAULT_WARM_S = 600
NUM_CORES = 8
MEMORY_GIB = 32
"""CPU cores and memory of a container."""
MAX_CONCURRENT_CALLS = 64
"""Calls in one container at once: batches of several drivers, their pages, questions about the state."""

MAX_BATCH_S = 3600
"""Seconds after which Modal ends a call. The limits of the service and the driver are usually shorter."""

STATE_DIR = Path(tempfile.gettempdir()) / "kbopt"
PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = ("core", "evaluation", "leanbuild")
SHIPPED_FILES = (
    *("__init__.py", "backends/__init__.py"),
    *("backends/modal_app.py", "backends/modal_container.py", "backends/modal_wire.py"),
)


def ships(path: Path) -> bool:
    """Return whether a file of the package is sent to the container, and so is part of the app's name."""
    relative = path.relative_to(PACKAGE) if path.is_absolute() else path
    if "__pycache__" in relative.parts or relative.suffix == ".pyc":
        return False
    return relative.parts[0] in SHIPPED or relative.as_posix() in SHIPPED_FILES


LANGUAGES_VARIABLE = "KBOPT_MODAL_LANGUAGES"


def languages() -> tuple[Language, ...]:
    """The languages whose packages the image has: those that KBOPT_MODAL_LANGUAGES names, split by commas."""
    asked = {name.strip() for name in os.environ.get(LANGUAGES_VARIABLE, "").split(",")} - {""}
    unknown = sorted(asked - set(PACKAGES))
    if unknown:
        raise UserError(
            f"KBOPT_MODAL_LANGUAGES: {unknown[0]!r}. Allowed, split by commas: {', '.join(PACKAGES)}."
        )
    return tuple(name for name in PACKAGES if name in asked)


def requirements() -> tuple[str, ...]:
    """What `languages` need, each requirement once."""
    return tuple(dict.fromkeys(one for name in languages() for one in PACKAGES[name].requirements))


# torch 2.9.0 contains CUDA 12.8, so the toolkit that builds extensions is 12.8 too. The sources come last:
# they are mounted when a container starts, so that an edit does not build a new image.
image = (
    modal.Image.from_registry("nvidia/cuda:12.8.1-devel-ubuntu24.04", add_python="3.12")
    .apt_install("build-essential")
    .uv_pip_install("torch==2.9.0", "triton==3.5.0", "numpy==2.3.4", "ninja==1.13.0", *requirements())
    .env({"MODAL_PAYLOAD_FORMAT": "cbor"})
    .add_local_dir(PACKAGE, "/root/kbopt", ignore=lambda path: not ships(path))
)

app = modal.App("kbopt", image=image, include_source=False)


@app.cls(
    cpu=NUM_CORES,
    memory=MEMORY_GIB * 1024,
    max_containers=1,
    scaledown_window=int(os.environ.get("KBOPT_MODAL_WARM_S", DEFAULT_WARM_S)),
    timeout=MAX_BATCH_S,
    startup_timeout=900,
    retries=0,
    block_network=True,
    restrict_modal_access=True,
)
@modal.concurrent(max_inputs=MAX_CONCURRENT_CALLS)
class Evaluator:
    """The container that all drivers of one GPU type share. Each `lane` has its own container."""

    lane: str = modal.parameter(default="shared")

    @modal.enter()
    async def open(self) -> None:
        # The device is named, because a container without its GPU must not judge on its CPU. Only the tests'
        # own control plane, which has no GPUs, sets the variable.
        device = os.environ.get("KBOPT_MODAL_DEVICE", "cuda")
        self._container = ModalContainer(device=device, state_dir=STATE_DIR)
        await self._container.open()

    @modal.exit()
    async def close(self) -> None:
        await self._container.close()

    @modal.method()
    async def run_batch(self, message: Message) -> Message:
        reply = await self._container.run_batch(message)
        if self._container.broken:
            await modal.experimental.stop_fetching_inputs.aio()
        return reply

    @modal.method()
    async def read_page(self, message: Message) -> Message:
        return self._container.read_page(message)

    @modal.method()
    async def describe(self, message: Message) -> Message:
        """Answer with the state of the container. The call starts a container if none is up."""
        if self._container.broken:
            await modal.experimental.stop_fetching_inputs.aio()
        return answer(self._container.describe(message["owner"]))

    @modal.method()
    async def retire(self, message: Message) -> Message:
        """Finish the running calls, take no more, and shut the container down."""
        await modal.experimental.stop_fetching_inputs.aio()
        return answer(self._container.describe(message["owner"]))
