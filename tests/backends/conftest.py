from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from kbopt.backends.modal_client import ModalBackend
from tests.support.modal_plane import CHECKOUT, ModalPlane, shared_plane

Driver = Callable[..., "subprocess.Popen[str]"]
OpenBackend = Callable[..., AbstractAsyncContextManager[ModalBackend]]


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalPlane]:
    """The loopback plane with all knobs as at its start; this process's environment points at it."""
    plane = shared_plane()
    for name, value in plane.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KBOPT_CACHE", str(tmp_path_factory.getbasetemp() / "locks"))
    plane.reset()
    yield plane
    plane.reset()


@pytest.fixture
def opened(plane: ModalPlane) -> OpenBackend:
    """`async with opened("L4", lane=...) as backend`: a backend over the plane, opened and closed."""

    @asynccontextmanager
    async def open_backend(gpu: str = "L40S", **options: Any) -> AsyncIterator[ModalBackend]:
        backend = ModalBackend(gpu, **{"poll_s": 0.1, "start_timeout_s": 60.0, **options})
        await backend.open()
        try:
            yield backend
        finally:
            await backend.close()

    return open_backend


@pytest.fixture
def driver(plane: ModalPlane) -> Iterator[Driver]:
    """Starts a Python program as another driver process; `env` entries of None are removed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, **env: str | None) -> subprocess.Popen[str]:
        merged = {**os.environ, **env}
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env={name: value for name, value in merged.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
