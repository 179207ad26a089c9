"""Checks of Modal's account, network and GPU names, before a container is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import modal
from modal.config import config
from modal.exception import AuthError, InvalidError, NotFoundError
from modal.exception import ConnectionError as ModalConnectionError
from modal.exception import Error as ModalError

from kbopt.core.errors import InfraError, UserError, unknown_name

T = TypeVar("T")

GPU_NAMES = (
    *("T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB"),
    *("RTX-PRO-6000", "H100", "H100!", "H200", "B200"),
)
"""GPU types as Modal spells them, in the order of price. Modal may upgrade `H100` to H200, but not
`H100!`."""

CONNECT_TIMEOUT_S = 20.0
"""Seconds for one answer of Modal. Its SDK would try for 56 s."""

# CBOR carries only plain data. The SDK reads this variable at each call, and containers answer in CBOR too.
os.environ["MODAL_PAYLOAD_FORMAT"] = "cbor"


class ContainerGone(InfraError):
    """The app or the call does not exist any more. The next attempt has to find or deploy the app again."""


def check_gpu(name: str) -> str:
    """Return `name` as Modal spells it. Raises UserError with the nearest names."""
    canonical = name.upper()
    if canonical not in GPU_NAMES:
        raise unknown_name("GPU type", name, GPU_NAMES)
    return canonical


def other_gpus(gpu: str, count: int = 3) -> tuple[str, ...]:
    """Return the `count` other types nearest in price to `gpu`, without `A10G` and `H100!`."""
    position = GPU_NAMES.index(gpu)
    others = [
        name for name in GPU_NAMES if name.rstrip("G!") != gpu.rstrip("G!") and name not in ("A10G", "H100!")
    ]
    return tuple(sorted(others, key=lambda name: abs(GPU_NAMES.index(name) - position))[:count])


def check_token() -> None:
    """Raise UserError if no Modal token is configured. A wrong token shows only at its first use."""
    if not (config.get("token_id") and config.get("token_secret")) and not config.get("oauth_refresh_token"):
        raise UserError(_no_token("no Modal token is configured"))


async def connect(*, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Connect to Modal. Raises UserError for a missing or wrong token, InfraError without an answer."""
    check_token()
    async with modal_errors():
        await bounded(_hello(), timeout_s)


async def _hello() -> None:
    client = await modal.Client.from_env.aio()  # connects, and tries again for 56 s
    await client.hello.aio()  # type: ignore[no-untyped-call]


async def bounded(call: Awaitable[T], timeout_s: float = CONNECT_TIMEOUT_S) -> T:
    """Return the answer of one short call to Modal. Raises InfraError after `timeout_s` seconds."""
    try:
        return await asyncio.wait_for(call, timeout_s)
    except TimeoutError:
        raise InfraError(
            f"Modal did not answer within {timeout_s:g} s at {config.get('server_url')}; check the network, "
            "then try again, or use --backend local"
        ) from None


@asynccontextmanager
async def modal_errors() -> AsyncIterator[None]:
    """Translate the SDK's errors to UserError, ContainerGone and InfraError."""
    try:
        yield
    except AuthError as error:
        raise UserError(_no_token(f"Modal refused the token: {error}")) from None
    except InvalidError as error:
        raise UserError(f"Modal refused the request: {error}") from None
    except NotFoundError as error:
        raise ContainerGone(f"Modal knows it no longer: {error}") from None
    except (ModalConnectionError, OSError) as error:
        raise InfraError(f"Modal cannot be reached at {config.get('server_url')}: {error}") from None
    except ModalError as error:
        raise ContainerGone(f"Modal: {type(error).__name__}: {error}".rstrip(": ")) from None


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a new thread, so that it also works within an event loop, as in a notebook."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def _no_token(what: str) -> str:
    profile = os.environ.get("MODAL_PROFILE") or "the active profile"
    return f"{what} ({profile}). Run `modal token new`, or use --backend local."
