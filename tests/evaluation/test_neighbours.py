"""Two evaluators at once on one CPU: each result says who else was timing, and so does the search."""

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from kbopt.backends.local import LocalBackend
from kbopt.backends.opening import Reminder
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured
from kbopt.core.task import Task
from kbopt.evaluation.server.neighbours import Neighbours
from tests.evaluation.conftest import ELEMENTWISE, QUICK
from tests.evaluation.test_verdicts import PLAIN

CORES = sorted(os.sched_getaffinity(0))


@asynccontextmanager
async def opened(state_dir: Path, cores: tuple[int, ...] = ()):
    backend = LocalBackend(device="cpu", state_dir=state_dir, cores=cores)
    await backend.open()
    yield backend
    await backend.close()


async def notes_of(backend: LocalBackend, number: int) -> str:
    """Judge kernels that differ, and return all notes on them."""
    notes = []
    for one in range(number):
        task = Task(name="t", source=ELEMENTWISE)
        request = EvalRequest(task=task, source=f"{PLAIN}# {one}\n", protocol=QUICK)
        (result,) = await backend.evaluate([request])
        assert isinstance(result.outcome, Measured), result.outcome
        notes += result.outcome.audit.notes
    return "\n".join(notes)


async def test_both_are_told_of_the_other_until_it_ends(tmp_path: Path):
    async with opened(tmp_path / "a") as one:
        async with opened(tmp_path / "b") as other:
            told, heard = await asyncio.gather(notes_of(one, 4), notes_of(other, 4))
            assert f"Another kbopt evaluator (process {other.pid}) timed on this CPU at the same time" in told
            assert f"(process {one.pid})" in heard
            assert "as by taskset" in heard
            said: list[str] = []
            remind = Reminder(said.append)
            remind(await other.status())
            remind(await other.status())
            assert [text.startswith("Another kbopt evaluator (process ") for text in said] == [True]
        assert f"(process {other.pid})" not in await notes_of(one, 1)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
async def test_services_on_cores_of_their_own_do_not_disturb_each_other(tmp_path: Path):
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(opened(tmp_path / str(core), (core,))) for core in CORES[:2]
        ]
        told, heard = await asyncio.gather(notes_of(one, 2), notes_of(other, 2))
    assert f"(process {other.pid})" not in told
    assert f"(process {one.pid})" not in heard


BESIDE = """
import sys
from pathlib import Path
from kbopt.evaluation.server.neighbours import Neighbours
with Neighbours("GPU-1/2", on_cuda=True, folder=Path(sys.argv[1])).noticed():
    print("times", flush=True)
    sys.stdin.read()
"""


def beside(folder: Path) -> subprocess.Popen[str]:
    """Another process that times on the GPU until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", BESIDE, str(folder)], text=True, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "times\n"
    return process


def test_one_that_began_before_and_one_that_ended_meanwhile_are_noticed_on_a_gpu_too(tmp_path: Path):
    mine = Neighbours("GPU-1/2", on_cuda=True, folder=tmp_path)
    on_cpu = Neighbours("cpu", on_cuda=False, folder=tmp_path)
    with beside(tmp_path) as process:
        with mine.noticed(), on_cpu.noticed():
            pass
        process.communicate()
    assert f"(process {process.pid}) timed on this GPU" in mine.note
    assert on_cpu.note == ""

    with mine.noticed():
        pass
    assert mine.note == ""

    with mine.noticed(), beside(tmp_path) as process:
        process.communicate()
    assert f"(process {process.pid})" in mine.note


def test_without_the_file_nobody_is_noticed_and_nothing_fails(tmp_path: Path):
    nobody = Neighbours("cpu", on_cuda=False, folder=tmp_path / "missing")

    with nobody.noticed():
        pass

    assert nobody.note == ""


def test_what_another_user_wrote_to_the_file_fails_nothing(tmp_path: Path):
    mine = Neighbours("cpu", on_cuda=False, folder=tmp_path)
    (file,) = tmp_path.iterdir()

    with mine.noticed():
        file.write_bytes(b"\xffnot a number")

    assert mine.note == ""
