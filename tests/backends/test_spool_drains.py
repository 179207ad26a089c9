"""Searches and drains as real processes on the CPU: killed at any moment, at once, and far apart."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kbopt.backends.spool import SpoolBackend
from kbopt.core.evaluations import Result
from kbopt.core.outcomes import TimedOut, WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.spool.files import open_spool
from tests.cli.test_run import evaluations, kbopt, start, wait_for_evaluations
from tests.support import quick_task
from tests.support.drains import draining, end, jobs, lines, start_drain, wait_for_claims
from tests.support.processes import descendants, is_running, kill_family

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENT = EvalProtocol(trials=1, timed=10, timeout_s=8.0, compile_timeout_s=60.0)


@asynccontextmanager
async def opened(folder: Path, owner: str = "me") -> AsyncIterator[SpoolBackend]:
    backend = SpoolBackend(folder, owner=owner, poll_s=0.1)
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


def ask(backend: SpoolBackend, *sources: str) -> asyncio.Task[list[Result]]:
    requests = [quick_task.request(source, protocol=PATIENT) for source in sources]
    return asyncio.create_task(backend.evaluate(requests))


def answered(spool: Path) -> Counter[object]:
    return Counter(line["id"] for line in lines(spool, "results"))


async def test_two_drains_at_once_judge_each_request_once(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with draining(spool, tmp_path / "one"), draining(spool, tmp_path / "two"):
        async with opened(spool, "me") as mine, opened(spool, "you") as yours:
            sources = [quick_task.wrong(str(number)) for number in range(8)]
            results = await asyncio.gather(ask(mine, *sources), ask(yours, *sources))
        assert all(isinstance(result.outcome, WrongAnswer) for result in [*results[0], *results[1]])
        assert len(answered(spool)) == 16
        assert set(answered(spool).values()) == {1}
        assert {result.boot for part in results for result in part} == {job["boot"] for job in jobs(spool)}


async def test_a_drain_says_what_it_does_in_its_signs_of_life(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with draining(spool, tmp_path / "one"):
        async with opened(spool) as backend:
            judged = ask(backend, quick_task.HANGS)
            seen: set[str] = set()
            while not judged.done():
                seen |= (await backend.status()).phases.keys()
                await asyncio.sleep(0.1)
    assert "checking" in seen


async def test_another_drain_takes_over_from_one_that_was_killed_in_the_middle(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    async with opened(spool) as backend:
        with draining(spool, tmp_path / "one") as killed:
            asked = ask(backend, quick_task.HANGS)
            await asyncio.to_thread(wait_for_claims, spool)
            family = descendants(killed.pid)
            os.kill(killed.pid, signal.SIGKILL)
            await asyncio.to_thread(killed.wait)
            while any(map(is_running, family)):  # nobody is left to judge beside the next one
                await asyncio.sleep(0.1)
        assert answered(spool) == {}
        with draining(spool, tmp_path / "two", "--takeover-seconds", 5):
            (result,) = await asked
            (boot,) = [job["boot"] for job in jobs(spool) if job["judged"] or job["pid"] != killed.pid]
        assert isinstance(result.outcome, TimedOut)
        assert result.boot == boot
    assert [path.suffix for path in wait_for_claims(spool)] == [".0", ".1"]
    assert set(answered(spool).values()) == {1}


async def test_a_drain_that_is_told_to_end_leaves_its_request_to_the_next(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    async with opened(spool) as backend:
        with draining(spool, tmp_path / "state") as drain:
            asked = ask(backend, quick_task.HANGS)
            await asyncio.to_thread(wait_for_claims, spool)
            drain.terminate()
            assert await asyncio.to_thread(drain.wait) == 143
            assert drain.stderr is not None
            assert "0 judged, 1 wait" in drain.stderr.read()
        with draining(spool, tmp_path / "state"):
            (result,) = await asked
    assert isinstance(result.outcome, TimedOut)


async def test_a_spool_travels_and_one_file_comes_back(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    async with opened(here) as backend:
        asked = ask(backend, *(quick_task.wrong(str(number)) for number in range(3)))
        while len(lines(here, "requests")) < 3:
            await asyncio.sleep(0.05)
        shutil.copytree(here, there)
        for judged in (3, 0):  # what it holds the results of is not judged again
            drain = start_drain(there, tmp_path / "state", "--once")
            _, errors = await asyncio.to_thread(drain.communicate)
            assert drain.returncode == 0, errors
            assert f"{judged} judged, 0 wait" in errors
        (file,) = (there / "results").iterdir()
        whole = file.read_bytes()
        for part in (whole[: len(whole) // 2], whole):  # as it arrives
            (here / "results" / file.name).write_bytes(part)
            await asyncio.sleep(0.3)
        results = await asked
    assert [type(result.outcome) for result in results] == [WrongAnswer] * 3
    drain = start_drain(here, tmp_path / "state", "--once")
    _, errors = await asyncio.to_thread(drain.communicate)
    assert "0 judged, 0 wait" in errors


async def test_a_killed_search_goes_on_and_nothing_is_judged_twice(tmp_path: Path) -> None:
    spool, run = tmp_path / "spool", tmp_path / "run"
    where = ("--backend", "spool", "--spool", spool, "--device", "cpu")
    short = ("--trials", 1, "--timed", 10, "--max-evals", 4, "--explorers", 2)
    with draining(spool, tmp_path / "state"):
        search = start("run", "--task", "quick/matmul", *where, *short, "--out", run)
        try:
            seen = wait_for_evaluations(run, 2)
            kill_family(search.pid)
        finally:
            end(search)
        again = kbopt("resume", run, "--json", timeout_s=300)
        assert again.returncode == 0, again.stderr
    assert evaluations(run)[: len(seen)] == seen
    assert set(Counter(evaluations(run)).values()) == {1}
    asked = Counter(str((line["owner"], line["request"])) for line in lines(spool, "requests"))
    assert set(asked.values()) == {1}
    assert set(answered(spool).values()) == {1}
    assert len(answered(spool)) == len(asked)


def test_the_machine_with_the_gpu_needs_nothing_but_torch_and_numpy(tmp_path: Path) -> None:
    open_spool(tmp_path / "spool", create=True)
    program = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "click", "rich", "modal", "litellm", "pydantic", "cbor2", "plotly"):
            raise ImportError(f"{name} is not on the machine with the GPU")
sys.meta_path.insert(0, Nothing())
sys.argv = ["drain", "drain", sys.argv[1], "--once", "--device", "cpu", "--state-dir", sys.argv[2]]
from kbopt.evaluation.__main__ import main
main()
"""
    words = [sys.executable, "-c", program, str(tmp_path / "spool"), str(tmp_path / "state")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 judged, 0 wait" in done.stderr


async def test_the_slurm_script_drains_with_the_options_that_it_is_given(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "experiments" / "slurm_drain.sh"
    async with opened(tmp_path / "spool") as backend:
        asked = ask(backend, quick_task.wrong("slurm"))
        while not lines(tmp_path / "spool", "requests"):
            await asyncio.sleep(0.05)
        done = await asyncio.to_thread(
            subprocess.run,
            [script, tmp_path / "spool", "--device", "cpu", "--once"],
            env={**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "1 judged, 0 wait" in done.stderr
        (result,) = await asked
    assert isinstance(result.outcome, WrongAnswer)
    assert not (tmp_path / "kbopt-drain-7").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing",), "missing is no folder. Make it"),
        ((".", "--device", "gpu"), "unknown device 'gpu': there is auto, cpu, cuda and cuda:N"),
        ((".", "--state-dir", "/dev/null/below"), "--state-dir /dev/null/below cannot be made: "),
        ((".", "--minutes", "0"), "'0': give a number above 0"),
        ((".", "--minutes", "nan"), "'nan': give a number above 0"),
        ((".", "--takeover-seconds", "3"), "'3': give a number above 4"),
    ],
)
def test_a_drain_that_cannot_begin_says_why(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kbopt.evaluation", "drain", *words]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
