"""The service dies with its parent, is missed when it dies, and leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbopt.backends.local import LocalBackend
from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient
from kbopt.evaluation.service_messages import ServiceInfo, Told
from tests.evaluation.conftest import ELEMENTWISE, QUICK
from tests.evaluation.test_verdicts import HEAD, PLAIN

SLEEPS = HEAD + "        time.sleep(60)\n"


def request(source: str) -> EvalRequest:
    return EvalRequest(task=Task(name="t", source=ELEMENTWISE), source=source, protocol=QUICK)


def session_of(pid: int) -> set[int]:
    """Processes of the session that the service leads, and of all that descend from it."""
    found = {pid}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid or int(fields[1]) in found:
            found.add(int(path.parent.name))
    return found


def wait_until_gone(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + 10
    while left := {pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)}:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return set()


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_calls_under_way_raise_when_the_service_is_killed_and_it_can_be_opened_again(tmp_path):
    client = ServiceClient(device="cpu", state_dir=tmp_path)
    info = await client.open()
    call = asyncio.create_task(client.evaluate(request(SLEEPS)))
    await asyncio.sleep(1.5)
    pids = session_of(info.pid)

    os.kill(info.pid, signal.SIGKILL)

    with pytest.raises(InfraError, match="ended with code -9"):
        await call
    assert wait_until_gone(pids) == set()
    with pytest.raises(InfraError, match="not running"):
        await client.evaluate(request(PLAIN))
    again = await client.open()
    assert again.boot != info.boot
    assert isinstance((await client.evaluate(request(PLAIN))).outcome, Measured)
    await client.close()
    assert wait_until_gone(session_of(again.pid)) == set()


def test_the_service_does_not_outlive_its_parent(tmp_path):
    program = f"""
import asyncio, os
from pathlib import Path
from kbopt.evaluation.client import ServiceClient

async def main():
    info = await ServiceClient(device="cpu", state_dir=Path({str(tmp_path)!r})).open()
    print(info.pid, flush=True)
    os._exit(1)

asyncio.run(main())
"""
    pid = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).stdout)

    assert wait_until_gone(session_of(pid)) == set()


BUILDS = "import time\ntime.sleep(1)\n" + PLAIN
KILLED = """
import asyncio, sys
from pathlib import Path
from kbopt.core.outcomes import Measured
from kbopt.evaluation.client import ServiceClient
from tests.evaluation.test_lifetime import BUILDS, request

async def main():
    client = ServiceClient(device="cpu", state_dir=Path(sys.argv[1]))
    print((await client.open()).pid, flush=True)
    await client.evaluate(request(BUILDS))

asyncio.run(main())
"""


async def test_what_was_being_built_when_all_was_killed_is_built_by_the_next(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        pids = session_of(int(driver.stdout.readline()))
        staging = tmp_path / "builds" / "staging"
        while not (staging.is_dir() and list(staging.iterdir())):
            await asyncio.sleep(0.05)
        driver.kill()
    assert wait_until_gone(pids) == set()
    client = ServiceClient(device="cpu", state_dir=tmp_path)
    await client.open()
    async with asyncio.timeout(60):
        result = await client.evaluate(request(BUILDS))
    await client.close()
    assert isinstance(result.outcome, Measured), result.outcome


async def test_the_local_backend_starts_a_dead_service_again_and_counts_it(tmp_path):
    backend = LocalBackend(device="cpu", state_dir=tmp_path)
    first = await backend.open()
    [before] = await backend.evaluate([request(PLAIN)])
    os.kill(backend.pid, signal.SIGKILL)
    await asyncio.sleep(0.5)

    [after] = await backend.evaluate([request(PLAIN)])

    status = await backend.status()
    await backend.close()
    assert (first.cold_starts, status.cold_starts) == (1, 2)
    assert before.boot == first.boot != after.boot == status.boot
    assert (await backend.status()).state == "closed"


async def test_a_device_that_is_not_there_is_the_users_to_change(tmp_path):
    client = ServiceClient(device="cuda:7", state_dir=tmp_path)

    with pytest.raises(UserError, match="cuda:7"):
        await client.open()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no json at all", "said what cannot be read"),
        ('{"id": 1, "content": {"type": "Result", "outcome": 1}}', "said what cannot be read"),
        ('{"id": 1}', "said what cannot be read"),
    ],
)
async def test_an_answer_that_cannot_be_read_leaves_no_call_waiting(tmp_path, answer, reason):
    service = tmp_path / "service"
    info = ServiceInfo(device="cpu", boot="b", started=0.0, pid=1)
    ready = codec.packed(Told(id=0, content=info)).decode()
    service.write_text(f"#!/bin/sh\necho '{ready}'\nread line\necho '{answer}'\nread line\n")
    service.chmod(0o755)
    client = ServiceClient(device="cpu", state_dir=tmp_path, python=str(service))
    await client.open()
    async with asyncio.timeout(10):
        with pytest.raises(InfraError, match=reason):
            await client.evaluate(request(PLAIN))
    await client.close()
