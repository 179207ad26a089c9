"""`kbopt mcp --http`: real clients over the loopback, one evaluator, and who is let in."""

import asyncio
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from kbopt.core.events import Evaluated
from kbopt.store.journal import JournalReader
from tests.support.agents import (
    CPU,
    SIMULATED,
    TOKEN,
    WRONG,
    call,
    command,
    http,
    http_server,
    refusal,
    simulated,
)
from tests.support.processes import descendants


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (("--http", ":0"), "", "is not served without a token"),
        (("--http", ":0", "--token-env", "KBOPT_NO_SUCH"), "", "KBOPT_NO_SUCH: it is not set"),
        (("--http", ":0", "--token-env", "KBOPT_T"), "short", "has 5 characters; it needs at least 16"),
        (("--http", "8000", "--token-env", "KBOPT_T"), "x" * 32, "'8000' is no address. Give HOST:PORT"),
        (("--http", "192.0.2.1:1", "--token-env", "KBOPT_T"), "x" * 32, "cannot listen on 192.0.2.1:1"),
        (("--token-env", "KBOPT_T"), "x" * 32, "goes with --http"),
    ],
)
def test_it_refuses_to_start_without_an_address_and_a_token(
    arguments: tuple[str, ...], token: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBOPT_T", token)
    words = command("mcp", *SIMULATED, "--out", tmp_path / "runs", *arguments)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tasks", "quick/gelu,sim/smooth", "--device", "cpu"),
        ("--tasks", "quick/gelu", "--backend", "simulated"),
        ("--backend", "simulated"),
    ],
)
def test_a_task_that_its_device_cannot_judge_is_not_offered(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    words = command("mcp", *arguments, "--out", tmp_path / "runs")
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "do not go together: a simulation needs --task sim/NAME" in done.stderr


def test_a_wrong_token_a_foreign_host_and_garbage_are_turned_away(tmp_path: Path) -> None:
    with http_server(tmp_path, *SIMULATED) as (_, url):
        both = "application/json, text/event-stream"
        good = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": both}
        codes = [
            httpx2.post(url, content=body, headers=headers).status_code
            for body, headers in (
                ("{}", {}),
                ("{}", {"Authorization": f"Bearer {TOKEN[:-1]}g"}),
                ("{}", {"Authorization": "Basic eDp5"}),
                ("{}", {**good, "Host": "evil.example"}),
                ("garbage", good),
            )
        ]
        assert codes[:3] == [401, 401, 401]
        assert codes[3:] == [421, 400]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_two_clients_have_sessions_and_budgets_of_their_own(mode: str, tmp_path: Path) -> None:
    with http_server(tmp_path, *SIMULATED, "--max-evals", 1) as (_, url):
        async with http(url, name="one", mode=mode) as one, http(url, name="two", mode=mode) as two:
            answers = await asyncio.gather(
                *(call(each, "evaluate", task="sim/smooth", kernel=simulated(4)) for each in (one, two))
            )
            assert [answer["candidate"] for answer in answers] == ["c000001", "c000001"]
            assert [answer["cached"] for answer in answers] == [False, False]
            assert answers[0]["run"] != answers[1]["run"]
            for each in (one, two):
                history = await call(each, "history")
                assert (len(history["evaluations"]), history["evaluations_left"]) == (1, 0)
            await call(one, "submit")
    assert len(list(tmp_path.glob("*/report.html"))) == 2


@pytest.mark.slow
async def test_forty_agents_at_once_each_get_their_own_answers(tmp_path: Path) -> None:
    """How long they wait is measured by benchmarks/agents_on_one_device.py."""
    num_agents = 40

    async def work(url: str, index: int) -> tuple[str, list[float]]:
        levels = (index % 16, (index + 1) % 16)
        async with http(url, name=f"agent-{index}") as client:
            answers = [
                await call(client, "evaluate", task="sim/smooth", kernel=simulated(level)) for level in levels
            ]
            history = await call(client, "history")
            assert [one["candidate"] for one in history["evaluations"]] == ["c000001", "c000002"]
            assert "all 2 evaluations" in await refusal(
                client, "evaluate", task="sim/smooth", kernel=simulated(15 - levels[0])
            )
        assert answers[0]["run"] == answers[1]["run"]
        return answers[0]["run"], [answer["speedup"] for answer in answers]

    with http_server(tmp_path, *SIMULATED, "--max-evals", 2) as (_, url):
        async with asyncio.timeout(120):
            found = await asyncio.gather(*(work(url, index) for index in range(num_agents)))
    assert len({run for run, _ in found}) == num_agents
    assert _num_evaluated(tmp_path) == 2 * num_agents
    for run, speedups in found:
        with JournalReader(tmp_path / Path(run).name / "journal.sqlite") as journal:
            outcomes = [
                entry.event.result.outcome
                for entry in journal.entries()
                if isinstance(entry.event, Evaluated)
            ]
        assert [getattr(outcome, "speedup", None) for outcome in outcomes] == speedups


@pytest.mark.slow
async def test_a_client_that_goes_away_has_its_kernel_judged_and_the_others_are_served(
    tmp_path: Path,
) -> None:
    with http_server(tmp_path, *CPU) as (process, url):

        async def gone() -> None:
            async with http(url, name="gone") as client:
                await client.call_tool("evaluate", {"task": "quick/gelu", "kernel": WRONG})

        leaving = asyncio.create_task(gone())
        async with asyncio.timeout(20):
            while not list(tmp_path.glob("*/journal.sqlite")):
                await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        async with http(url, name="stays") as client:
            answer = await call(client, "evaluate", task="quick/gelu", kernel=WRONG + "# mine\n")
            assert answer["outcome"] == "wrong_answer"
        services = [pid for pid in descendants(process.pid) if _is_service(pid, process.pid)]
        assert len(services) == 1
        deadline = time.monotonic() + 20
        while _num_evaluated(tmp_path) < 2:
            assert time.monotonic() < deadline, "the kernel of the client that left was not judged"
            await asyncio.sleep(0.1)


def _is_service(pid: int, parent: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1]) == parent


def _num_evaluated(out: Path) -> int:
    number = 0
    for path in out.glob("*/journal.sqlite"):
        with JournalReader(path) as journal:
            number += sum(isinstance(entry.event, Evaluated) for entry in journal.entries())
    return number
