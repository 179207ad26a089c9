"""Deploys the container side under a name that its content decides, once for all drivers.

A run that has the same sources, image, SDK and warm time finds the app of an earlier run, and its warm
container; one that differs gets an app of its own and never replaces another run's container.
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
"""What Modal allows as `scaledown_window`."""

DEPLOY_TIMEOUT_S = 1800.0
"""A first deployment builds the image: several GB of CUDA and torch."""

LOCK_POLL_S = 0.1
KEPT_OUTPUT_LINES = 100
"""Of a failed command. Below the reason may stand tracebacks of tasks that Modal's client cancelled."""
CLASS_NAME = "Evaluator"

OnOutput = Callable[[str], None]


def warm_seconds(warm_minutes: float) -> int:
    """`warm_minutes` as Modal's `scaledown_window`. Raises `UserError` outside 2 s to 60 min."""
    seconds = round(warm_minutes * 60)
    if not MIN_WARM_S <= seconds <= MAX_WARM_S:
        raise UserError(
            f"warm minutes of {warm_minutes:g} are {seconds} s; Modal allows {MIN_WARM_S} s to "
            f"{MAX_WARM_S // 60} minutes ({MIN_WARM_S / 60:.3f} to {MAX_WARM_S // 60})"
        )
    return seconds


def app_name(warm_minutes: float = DEFAULT_WARM_MINUTES) -> str:
    """`kbopt-<hash>` of the container's sources with the image definition, the SDK and the warm time.

    A process keeps the name that it saw first, so that an edit during a run starts no second container.
    """
    return _name_of_content(warm_seconds(warm_minutes))


@functools.cache
def _name_of_content(warm_s: int) -> str:
    digest = hashlib.sha256(f"modal {modal.__version__}, warm {warm_s} s".encode())
    for path in sorted(modal_app.PACKAGE.rglob("*")):
        if path.is_file() and modal_app.ships(path):
            name = path.relative_to(modal_app.PACKAGE).as_posix()
            digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return f"kbopt-{digest.hexdigest()[:12]}"


def ensure_deployed(*, warm_minutes: float = DEFAULT_WARM_MINUTES, on_output: OnOutput | None = None) -> str:
    """The name of the deployed app; deploys it first where nobody has. Safe to call from many processes.

    `on_output` gets the lines of the image build. Raises `UserError` without a usable token, `InfraError`
    where Modal cannot be reached or the build fails.
    """
    return run_blocking(deployed(warm_minutes=warm_minutes, on_output=on_output))


def deploy(*, warm_minutes: float = DEFAULT_WARM_MINUTES, on_output: OnOutput | None = None) -> str:
    """Deploy even where the app exists, as after an interrupted deployment; the result is its name."""

    async def work() -> str:
        name = app_name(warm_minutes)
        await connect()
        async with _lock(name):
            await _deploy(name, warm_seconds(warm_minutes), on_output)
        return name

    return run_blocking(work())


async def deployed(*, warm_minutes: float, on_output: OnOutput | None = None) -> str:
    """`ensure_deployed` for callers with an event loop."""
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
    """Whether the app runs; a stopped one counts as absent."""
    async with modal_errors():
        try:
            await bounded(modal.Cls.from_name(name, CLASS_NAME).hydrate.aio())
        except NotFoundError:
            return False
    return True


async def stop_app(name: str) -> None:
    """End the app and all its containers at once; the next run deploys it again."""
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
    """Run Modal's own command line: a process of its own reads the warm time afresh, and prints the build."""
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
    """Only one process of this user deploys `name` at a time. The lock goes with its process."""
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
