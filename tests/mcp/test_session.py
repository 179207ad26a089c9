"""What an agent's session may do, and the run that it leaves: a real client on stdio, a simulated device."""

import asyncio
import base64
import gzip
import json
import re
from pathlib import Path

import pytest

from kbopt.core.events import Asked, BackendStarted, CandidateProfiled, Ended, Evaluated, Opened, Proposed
from tests.support.agents import SIMULATED, call, entries, kbopt, refusal, simulated, stdio


def told_by(page: Path) -> str:
    """The data of a report's page."""
    packed = re.search(r'id="packed-data">([^<]*)<', page.read_text())
    assert packed is not None
    return gzip.decompress(base64.b64decode(packed[1])).decode()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_session_is_a_run_that_runs_report_and_show_read(mode: str, tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED, "--max-evals", 5, mode=mode) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == [
            *("tasks", "evaluate", "history", "best", "profile", "submit")
        ]
        assert all(tool.output_schema and tool.description for tool in listed.tools)
        names = [task["name"] for task in (await call(client, "tasks"))["tasks"]]
        assert names == ["sim/smooth", "sim/rugged"]
        slow = await call(client, "evaluate", task="sim/smooth", kernel=simulated(2), note="first")
        fast = await call(client, "evaluate", task="sim/smooth", kernel=simulated(12), note="wider\ntiles")
        again = await call(client, "evaluate", task="sim/smooth", kernel=simulated(12))
        broken = await call(client, "evaluate", task="sim/smooth", kernel="class ModelNew: pass")
        assert slow["outcome"] == fast["outcome"] == "measured"
        assert slow["speedup"] < fast["speedup_ci"][0] <= fast["speedup"] <= fast["speedup_ci"][1]
        assert (fast["cached"], again["cached"], again["evaluations_left"]) == (False, True, 3)
        assert broken["speedup"] is None
        assert broken["reason"] != ""
        assert (broken["best"], broken["evaluations_left"]) == ("c000002", 2)
        history = await call(client, "history")
        assert [(row["candidate"], row["note"]) for row in history["evaluations"]] == [
            ("c000001", "first"),
            ("c000002", "wider tiles"),
            ("c000003", ""),
            ("c000004", ""),
        ]
        assert (await call(client, "best"))["kernel"] == simulated(12)
        answer = await call(client, "submit", candidate="c000002")
        assert answer["candidate"] == answer["winner"] == "c000002"
        assert answer["speedup"] == answer["winner_speedup"]
        assert answer["faster"] == ""
        assert Path(answer["winner_file"]).read_text() == simulated(12)
        assert await call(client, "submit", candidate="c000002") == answer
        assert "that answer stands" in await refusal(
            client, "evaluate", task="sim/smooth", kernel=simulated(3)
        )
        assert "submitted c000002 before" in await refusal(client, "submit", candidate="c000001")

    folder = Path(answer["report"]).parent
    kinds = [type(entry.event) for entry in entries(tmp_path)]
    assert kinds[:5] == [Opened, Asked, Proposed, BackendStarted, Evaluated]
    assert kinds.count(Ended) == 1
    (row,) = json.loads(kbopt("runs", tmp_path, "--json").stdout)
    assert (row["task"], row["evaluations"], row["ended"]) == ("sim/smooth", 3, "submitted c000002")
    assert row["speedup"] == answer["winner_speedup"]
    assert row["algorithm"] == "session"
    assert kbopt("report", folder).returncode == 0
    told = told_by(folder / "report.html")
    assert "submitted c000002" in told
    assert '"algorithm":"session"' in told
    assert "agent:mcp" in told
    shown = kbopt("show", folder, "c000002").stdout
    assert "agent:mcp" in shown
    assert "wider tiles" in shown


async def test_what_was_submitted_is_the_answer_though_another_kernel_measured_faster(tmp_path: Path) -> None:
    levels = (3, 12, 11, 10, 9)  # what is submitted is not among the best three
    async with stdio(tmp_path, *SIMULATED) as client:
        for level in levels:
            await call(client, "evaluate", task="sim/smooth", kernel=simulated(level))
        answer = await call(client, "submit", candidate="c000001")
        assert (answer["candidate"], answer["winner"]) == ("c000001", "c000001")
        assert answer["speedup"] == answer["winner_speedup"]
        assert answer["faster"].startswith("c000002 measured faster at the end, ")
        assert (await call(client, "best"))["candidate"] == "c000001"
    assert Path(answer["winner_file"]).read_text() == simulated(3)
    folder = Path(answer["report"]).parent
    assert "candidate c000001" in kbopt("show", folder).stdout
    assert "candidate c000001," in kbopt("export", folder).stdout
    (row,) = json.loads(kbopt("runs", tmp_path, "--json").stdout)
    assert row["speedup"] == answer["speedup"]
    assert answer["faster"] in told_by(folder / "report.html")


async def test_a_budget_of_evaluations_holds_over_tasks_and_calls_at_once(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED, "--max-evals", 3) as client:
        calls = [
            client.call_tool("evaluate", {"task": task, "kernel": simulated(level)})
            for level in (1, 2, 3)
            for task in ("sim/smooth", "sim/rugged")
        ]
        done = await asyncio.gather(*calls)
        refused = [result.content[0].text for result in done if result.is_error]
        assert len(refused) == 3
        assert "all 3 evaluations (--max-evals 3)" in refused[0]
        assert (await call(client, "history"))["evaluations_left"] == 0
        assert "several tasks" in await refusal(client, "best")
        assert (await call(client, "submit", task="sim/rugged"))["task"] == "sim/rugged"


async def test_a_budget_of_minutes_says_so_when_it_is_used_up(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED, "--minutes", 0.001) as client:
        assert (await call(client, "tasks"))["minutes_left"] <= 0.001
        await asyncio.sleep(0.1)
        said = await refusal(client, "evaluate", task="sim/smooth", kernel=simulated(1))
        assert "all 0.001 minutes (--minutes 0.001)" in said
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_judged_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED) as client:
        assert "Did you mean sim/smooth" in await refusal(
            client, "evaluate", task="sim/smoth", kernel="x = 1"
        )
        assert "unknown task '/etc/passwd.py'" in await refusal(client, "tasks", name="/etc/passwd.py")
        assert "the kernel is empty" in await refusal(client, "evaluate", task="sim/smooth", kernel=" \n")
        said = await refusal(client, "evaluate", task="sim/smooth", kernel="#" * 2**20)
        assert "the kernel has 1,048,576 bytes; at most 262,144 are judged" in said
        said = await refusal(client, "evaluate", task="sim/smooth")
        assert said == "evaluate was not called: kernel: Field required. It takes task, kernel, note."
        said = await refusal(client, "evaluate", task="sim/smooth", kernel=3)
        assert "kernel: Input should be a valid string (seen: '3')" in said
        said = await refusal(client, "submit", candidat="c000001")
        assert said == (
            "unknown argument of submit 'candidat'. Did you mean candidate? "
            "Allowed: candidate, kernel, note, task."
        )
        assert "unknown argument of history 'task'. Allowed: none." in await refusal(
            client, "history", task="sim/smooth"
        )
        assert "unknown tool 'evalute'. Did you mean evaluate?" in await refusal(client, "evalute")
        for tool in ("best", "submit"):
            assert "nothing was evaluated in this session yet" in await refusal(client, tool)
        assert list(tmp_path.iterdir()) == []
        await call(client, "evaluate", task="sim/smooth", kernel="class ModelNew: pass")
        assert "is correct yet" in await refusal(client, "best")
        assert "is correct yet" in await refusal(client, "submit")
        assert "only a kernel that was measured" in await refusal(client, "submit", candidate="c000001")
        assert "unknown candidate 'c9'" in await refusal(client, "submit", candidate="c9")
        assert "give one" in await refusal(client, "submit", candidate="c000001", kernel="x = 1")
        answer = await call(client, "submit", kernel=simulated(9))
        assert answer["candidate"] == "c000002"


@pytest.mark.slow
async def test_resume_finishes_a_session_that_ended_without_a_submission(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED) as client:
        for level in (2, 12):
            answer = await call(client, "evaluate", task="sim/smooth", kernel=simulated(level))
    assert f"open: kbopt resume {answer['run']}" in kbopt("runs", tmp_path).stdout.replace("\n", "")
    assert (Path(answer["run"]) / "best.py").read_text() == simulated(12)
    done = kbopt("resume", answer["run"], "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["proposals"], document["evaluations"]) == (2, 2)
    assert document["best"]["candidate"] == "c000002"
    assert document["ended"] == "all 2 proposals were asked for"


async def test_a_profile_is_of_a_measured_kernel_and_a_device_that_has_profiles(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED) as client:
        assert "nothing was evaluated" in await refusal(client, "profile")
        await call(client, "evaluate", task="sim/smooth", kernel="class ModelNew: pass")
        assert "none can be profiled" in await refusal(client, "profile")
        await call(client, "evaluate", task="sim/smooth", kernel=simulated(2))
        assert "this backend has no profiles" in await refusal(client, "profile")
        assert "c000009" in await refusal(client, "profile", candidate="c000009")
        told = [entry.event for entry in entries(tmp_path) if isinstance(entry.event, CandidateProfiled)]
        assert [event.candidate for event in told] == ["c000002"]
        assert told[0].outcome.startswith("no profile: this backend has no profiles")
    (folder,) = tmp_path.glob("*/")
    assert "no profile: this backend has no profiles" in " ".join(
        kbopt("show", folder, "c000002").stdout.split()
    )
    kbopt("report", folder)
    assert told[0].outcome in told_by(folder / "report.html")
