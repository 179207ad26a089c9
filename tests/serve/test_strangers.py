"""Who reaches the port of `kbopt serve` or `kbopt mcp --http` without a token keeps nobody else out."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support.agents import SIMULATED, TOKEN, http_server

NUM_STRANGERS = 1000
SERVER_FILES = 640
"""Files that the server may have open: fewer than there are strangers."""


@pytest.fixture
def few_files() -> Iterator[None]:
    """What is started has `SERVER_FILES`; the limit is put back before the strangers are made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * NUM_STRANGERS:
        pytest.skip(f"this machine lets a process open {hard} files, and the strangers need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (SERVER_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("what", ["serve", "mcp"])
def test_strangers_that_connect_and_say_nothing_keep_no_client_out(
    what: str, few_files: None, tmp_path: Path
) -> None:
    with http_server(tmp_path, *SIMULATED, what=what) as (_, url), ExitStack() as strangers:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * NUM_STRANGERS, hard))
        at = httpx2.URL(url)
        for _ in range(NUM_STRANGERS):
            strangers.enter_context(socket.create_connection((at.host, at.port), timeout=30))
        answer = httpx2.get(f"{url}/tasks", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert answer.status_code == (200 if what == "serve" else 404)
