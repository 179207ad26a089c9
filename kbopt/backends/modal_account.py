"""Modal's account, network and GPU names: what may be wrong before any container is asked for."""

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
"""GPU types by price, as Modal spells them; `H100!` forbids an upgrade to H200."""

CONNECT_TIMEOUT_S = 20.0
"""Modal's own SDK gives up after 56 s."""

# CBOR carries plain data only. The SDK reads this at each call, and containers answer in kind.
os.environ["MODAL_PAYLOAD_FORMAT"] = "cbor"


class ContainerGone(InfraError):
    """The app or the call does not exist any more; the next attempt has to look it up or deploy again."""


def check_gpu(name: str) -> str:
    """`name` as Modal spells it. Raises `UserError` with the nearest names."""
    canonical = name.upper()
    if canonical not in GPU_NAMES:
        raise unknown_name("GPU type", name, GPU_NAMES)
    return canonical


def other_gpus(gpu: str, count: int = 3) -> tuple[str, ...]:
    """The types nearest in price to `gpu`, for when none is free. `A10G` and `H100!` are no alternatives."""
    position = GPU_NAMES.index(gpu)
    others = [
        name for name in GPU_NAMES if name.rstrip("G!") != gpu.rstrip("G!") and name not in ("A10G", "H100!")
    ]
    return tuple(sorted(others, key=lambda name: abs(GPU_NAMES.index(name) - position))[:count])


def check_token() -> None:
    """Raise `UserError` where no Modal token is configured. Asks nobody; a wrong token shows at first use."""
    if not (config.get("token_id") and config.get("token_secret")) and not config.get("oauth_refresh_token"):
        raise UserError(_no_token("no Modal token is configured"))


async def connect(*, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Say hello to Modal. Raises `UserError` for a missing or wrong token, `InfraError` for no answer."""
    check_token()
    async with modal_errors():
        await bounded(_hello(), timeout_s)


async def _hello() -> None:
    client = await modal.Client.from_env.aio()  # connects, and tries again for 56 s
    await client.hello.aio()  # type: ignore[no-untyped-call]


async def bounded(call: Awaitable[T], timeout_s: float = CONNECT_TIMEOUT_S) -> T:
    """The answer of one short call to Modal, or `InfraError` after `timeout_s`."""
    try:
        return await asyncio.wait_for(call, timeout_s)
    except TimeoutError:
        raise InfraError(
            f"Modal did not answer within {timeout_s:g} s at {config.get('server_url')}; check the network, "
            "then try again, or use --backend local"
        ) from None


@asynccontextmanager
async def modal_errors() -> AsyncIterator[None]:
    """Translate what the SDK raises: what the user must change, what is gone, and what may be retried."""
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
    """The result of `work`, also where the caller's thread already runs an event loop, as in a notebook."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def _no_token(what: str) -> str:
    profile = os.environ.get("MODAL_PROFILE") or "the active profile"
    return f"{what} ({profile}). Run `modal token new`, or use --backend local."
