"""Forty agents on one simulated device: how busy it is, and how long an agent waits for an answer.

    python benchmarks/agents_on_one_device.py [--agents 40] [--service 0.5] [--think 10 20 30] [--minutes 2]

The service is `kbopt mcp --http` in a process of its own; each agent is a client of the MCP SDK with a
connection and a session of its own. An agent thinks, has a kernel evaluated, and thinks again. Its thinking
takes `--think` seconds on average, drawn from an exponential distribution, and an evaluation holds the device
for `--service` seconds. The device is simulated; the transport, the sessions, the queue and the journals are
real. Every kernel is a new one to its session.

Busy is the sum of the device's seconds over the window, from the journals. An answer's time is what the
client sees, from its call until the tool's result. The first half minute of each row is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from kbopt.agents.server import http_app
from kbopt.agents.serving import serve_http
from kbopt.agents.session import Offer
from kbopt.config import BackendConfig
from kbopt.core.events import Evaluated
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import Budget
from kbopt.simulated import LANDSCAPES
from kbopt.simulated.kernels import to_source
from kbopt.simulated.landscapes import NUM_LEVELS, NUM_PARAMETERS
from kbopt.store.journal import JournalReader

TASK = "sim/smooth"
TOKEN = "0123456789abcdef0123456789abcdef"
WARM_UP_S = 30.0
LONGEST_ANSWER_S = 300.0


def serve(out: Path, service_s: float) -> None:
    """`kbopt mcp --http --backend simulated`, with a device that takes `service_s` for an evaluation."""
    offer = Offer(
        tasks={TASK: lambda: LANDSCAPES[TASK].task},
        backend=BackendConfig(name="simulated", simulated_s=service_s),
        protocol=EvalProtocol(),
        budget=Budget(),
        out=out,
    )
    host = "127.0.0.1"
    serve_http(offer, partial(http_app, host=host), host, 0, TOKEN, lambda url: print(url, flush=True))


async def work(url: str, name: str, think_s: float, until: float) -> list[tuple[float, float]]:
    """One agent until `until`: when each of its calls began and ended, by the system's clock."""
    rng, calls = random.Random(name), []
    headers = {"Authorization": f"Bearer {TOKEN}", "Kbopt-Session": name}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=LONGEST_ANSWER_S) as connection,
        Client(streamable_http_client(url, http_client=connection)) as client,
    ):
        pause_s = rng.uniform(0.0, min(think_s, WARM_UP_S))  # All are at work when the window begins.
        while pause_s < until - time.time():
            await asyncio.sleep(pause_s)
            kernel = to_source(tuple(rng.randrange(NUM_LEVELS) for _ in range(NUM_PARAMETERS)))
            began = time.time()
            answer = await client.call_tool("evaluate", {"task": TASK, "kernel": kernel})
            if answer.is_error:
                raise RuntimeError(f"the evaluation of {name} failed: {answer.content}")
            calls.append((began, time.time()))
            pause_s = rng.expovariate(1.0 / think_s)
    return calls


async def crowd(url: str, agents: int, think_s: float, until: float) -> list[tuple[float, float]]:
    everyone = (work(f"{url}/mcp", f"agent-{index}", think_s, until) for index in range(agents))
    return [call for calls in await asyncio.gather(*everyone) for call in calls]


def device_seconds(out: Path, begin: float, end: float) -> float:
    """Seconds in which the device worked in the window, of the evaluations that ended in it."""
    seconds = 0.0
    for path in out.glob("*/journal.sqlite"):
        with JournalReader(path) as journal:
            seconds += sum(
                entry.event.result.device_s
                for entry in journal.entries()
                if isinstance(entry.event, Evaluated) and not entry.event.cached and begin <= entry.time < end
            )
    return seconds


def measure(agents: int, service_s: float, think_s: float, window_s: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        words = [sys.executable, __file__, "--serve", folder, "--service", str(service_s)]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            begin = time.time() + WARM_UP_S
            end = begin + window_s
            calls = asyncio.run(crowd(url, agents, think_s, end))
        finally:
            server.terminate()
            server.wait()
        busy = device_seconds(out, begin, end) / window_s
        sessions = len(list(out.glob("*/journal.sqlite")))
    waits = [ended - began for began, ended in calls if begin <= ended < end]
    median, ninety = statistics.median(waits), float(np.quantile(waits, 0.9))
    load = f"{os.getloadavg()[0]:.1f}"
    return f"| {sessions} | {think_s:g} | {len(waits)} | {busy:.0%} | {median:.1f} | {ninety:.1f} | {load} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=40)
    parser.add_argument("--service", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--think", type=float, nargs="+", default=[10.0, 20.0, 30.0], metavar="SECONDS")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.service)
        return
    print(f"{os.cpu_count()} cores; an evaluation holds the device for {options.service:g} s.\n")
    print("| sessions | thinking, s | answers | device busy | median, s | 90 %, s | load after |")
    print("| --- " * 7 + "|")
    for think_s in options.think:
        print(measure(options.agents, options.service, think_s, 60 * options.minutes), flush=True)


if __name__ == "__main__":
    main()
