"""Deploys the Modal app under a name made from its content, once for all drivers.

A run with the same sources, image, SDK and warm time finds the app of an earlier run and its warm container.
Any other run gets another app, so it never replaces another run's container.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import modal
from modal.exception import NotFoundError

from kbopt.backends import modal_app
from kbopt.backends.modal_account import bounded, connect, modal_errors, run_blocking
from kbopt.core.errors import InfraError, UserError

DEFAULT_WARM_MINUTES = modal_app.DEFAULT_WARM_S / 60
MIN_WARM_S, MAX_WARM_S = 2, 3600
"""Seconds that Modal allows as `scaledown_window`."""

DEPLOY_TIMEOUT_S = 1800.0
"""Seconds for a deployment. The first one builds the image, with several GB of CUDA and torch."""

LOCK_POLL_S = 0.1
KEPT_OUTPUT_LINES = 100
"""Lines of output that are shown of a failed command. Tracebacks of cancelled tasks may follow the reason."""
CLASS_NAME = "Evaluator"

OnOutput = Callable[[str], None]


def warm_seconds(warm_minutes: float) -> int:
    """Return `warm_minutes` in seconds. Raises UserError outside `MIN_WARM_S` to `MAX_WARM_S`."""
    seconds = round(warm_minutes * 60)
    if not MIN_WARM_S <= seconds <= MAX_WARM_S:
        raise UserError(
            f"warm minutes of {warm_minutes:g} are {seconds} s; Modal allows {MIN_WARM_S} s to "
            f"{MAX_WARM_S // 60} minutes ({MIN_WARM_S / 60:.3f} to {MAX_WARM_S // 60})"
        )
    return seconds


def app_name(warm_minutes: float = DEFAULT_WARM_MINUTES) -> str:
    """Return `kbopt-<hash>`: a hash of the container's sources, image, SDK, languages and warm time.

    A process keeps the first name that it computes, so that an edit during a run starts no second container.
    """
    return _name_of_content(warm_seconds(warm_minutes), modal_app.requirements())


@functools.cache
def _name_of_content(warm_s: int, requirements: tuple[str, ...]) -> str:
    settings = (f"modal {modal.__version__}", f"warm {warm_s} s", *requirements)
    digest = hashlib.sha256(", ".join(settings).encode())
    for path in sorted(modal_app.PACKAGE.rglob("*")):
        if path.is_file() and modal_app.ships(path):
            name = path.relative_to(modal_app.PACKAGE).as_posix()
            digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return f"kbopt-{digest.hexdigest()[:12]}"


def ensure_deployed(*, warm_minutes: float = DEFAULT_WARM_MINUTES, on_output: OnOutput | None = None) -> str:
    """Return the name of the app, and deploy it first if necessary. Many processes may call this at once.

    `on_output` is called with each line of the image build. Raises UserError without a usable token, and
    InfraError if Modal cannot be reached or the build fails.
    """
    return run_blocking(deployed(warm_minutes=warm_minutes, on_output=on_output))


def deploy(*, warm_minutes: float = DEFAULT_WARM_MINUTES, on_output: OnOutput | None = None) -> str:
    """Deploy the app even if it exists, as after an interrupted deployment. Return its name."""

    async def work() -> str:
        name = app_name(warm_minutes)
        await connect()
        async with _lock(name):
            await _deploy(name, warm_seconds(warm_minutes), on_output)
        return name

    return run_blocking(work())


async def deployed(*, warm_minutes: float, on_output: OnOutput | None = None) -> str:
    """Do what `ensure_deployed` does, in the caller's event loop."""
    name = app_name(warm_minutes)
    await connect()
    if await is_deployed(name):
        return name
    async with _lock(name):
        # Another process may have deployed it while this one waited for the lock.
        if not await is_deployed(name):
            await _deploy(name, warm_seconds(warm_minutes), on_output)
    return name


async def is_deployed(name: str) -> bool:
    """Return whether the app is deployed and not stopped."""
    async with modal_errors():
        try:
            await bounded(modal.Cls.from_name(name, CLASS_NAME).hydrate.aio())
        except NotFoundError:
            return False
    return True


async def stop_app(name: str) -> None:
    """Stop the app and all its containers at once. The next run deploys it again."""
    await _modal_cli(("app", "stop", "--yes", name), what=f"stopping {name}")


async def _deploy(name: str, warm_s: int, on_output: OnOutput | None) -> None:
    await _modal_cli(
        ("deploy", "-m", modal_app.__name__, "--name", name),
        what=f"deploying {name}",
        env={"KBOPT_MODAL_WARM_S": str(warm_s)},
        on_output=on_output,
    )


async def _modal_cli(
    arguments: tuple[str, ...],
    *,
    what: str,
    env: dict[str, str] | None = None,
    on_output: OnOutput | None = None,
) -> None:
    """Run Modal's command line in a new process, which reads the warm time anew and prints the build.

    Raises InfraError if it fails or takes longer than `DEPLOY_TIMEOUT_S`.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modal", *arguments),
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    last_lines: deque[str] = deque(maxlen=KEPT_OUTPUT_LINES)
    try:
        async with asyncio.timeout(DEPLOY_TIMEOUT_S):
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                last_lines.append(line)
                if on_output is not None:
                    on_output(line)
            status = await process.wait()
    except TimeoutError:
        raise InfraError(f"{what} took longer than {DEPLOY_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        output = "\n".join(last_lines)
        raise InfraError(f"{what} failed: `modal {' '.join(arguments)}` exited with {status}:\n{output}")


@asynccontextmanager
async def _lock(name: str) -> AsyncIterator[None]:
    """Hold a lock, so that one process of this user at a time deploys `name`. It ends with its process."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("KBOPT_CACHE") or caches / "kbopt")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield
