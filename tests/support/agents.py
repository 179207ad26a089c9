"""Agents of tests: real clients of `kbopt mcp` and `kbopt serve`, and kernels for them to judge."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from kbopt.agents.mcp_calls import PROGRESS_S
from kbopt.core.events import Entry
from kbopt.simulated.kernels import to_source
from kbopt.store.journal import JournalReader
from tests.support.processes import descendants, is_running

SIMULATED = ("--tasks", "sim/smooth,sim/rugged", "--backend", "simulated")
CPU = ("--tasks", "quick/gelu", "--device", "cpu", "--trials", 2, "--timed", 10)
TOKEN = "0123456789abcdef0123456789abcdef"

KERNEL = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        {body}
"""
GOOD = KERNEL.format(body='return torch.nn.functional.gelu(x, approximate="tanh")')
WRONG = KERNEL.format(body="return x * 0.5")
SLOW = KERNEL.format(body="import time; time.sleep(1.0); return x * 0.5")
LATE = KERNEL.format(body=f"import time; time.sleep({PROGRESS_S + 1}); return x * 0.5")
"""Wrong, and judged after the first report of progress even where the judge is idle and fast."""


def simulated(level: int) -> str:
    """A kernel of the simulation, the faster the nearer its level is to 12."""
    return to_source((level,) * 8)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kbopt", *map(str, arguments)]


def kbopt(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


@asynccontextmanager
async def stdio(out: Path, *arguments: object, mode: str = "auto") -> AsyncIterator[Client]:
    """A client of a server of its own, which ends with it."""
    program, *words = command("mcp", "--out", out, *arguments)
    # The SDK hands few variables on: the cache of builds and baselines must be the tests' own.
    parameters = StdioServerParameters(command=program, args=words, env=dict(os.environ))
    async with Client(parameters, mode=mode) as client:
        yield client


@asynccontextmanager
async def http(url: str, token: str = TOKEN, *, name: str = "", mode: str = "auto") -> AsyncIterator[Client]:
    """One client of the server at `url`."""
    headers = {"Authorization": f"Bearer {token}", **({"Kbopt-Session": name} if name else {})}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as connection,
        Client(streamable_http_client(url, http_client=connection), mode=mode) as client,
    ):
        yield client


@contextmanager
def http_server(
    out: Path, *arguments: object, what: str = "mcp"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server and its address; it ends as it should when it is told to."""
    process, url = start_http(out, *arguments, what=what)
    try:
        yield process, url
    finally:
        family = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        printed, said = process.communicate(timeout=30)
    assert (process.returncode, printed) == (143, ""), said
    assert "Traceback" not in said, said
    assert [pid for pid in family if is_running(pid)] == []


def start_http(out: Path, *arguments: object, what: str = "mcp") -> tuple[subprocess.Popen[str], str]:
    """`kbopt WHAT` on a free port of the loopback, and its address."""
    words = command(
        what, "--http", "127.0.0.1:0", "--token-env", "KBOPT_TEST_TOKEN", "--out", out, *arguments
    )
    server = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KBOPT_TEST_TOKEN": TOKEN},
        start_new_session=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://\S+", line):
            return server, found[0]
    raise RuntimeError(f"kbopt {what} ended with {server.wait()} before it listened")


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What the tool answers, as its output schema has it."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Why the tool refuses."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return result.content[0].text


def entries(out: Path) -> list[Entry]:
    """The journal of the only run in `out`."""
    (path,) = out.glob("*/journal.sqlite")
    with JournalReader(path) as journal:
        return list(journal.entries())
