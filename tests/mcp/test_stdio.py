"""`kbopt mcp` on stdio, with the judge of this machine's processor: what is judged, and how it ends."""

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kbopt.core.events import Evaluated, Proposed
from tests.support.agents import (
    CPU,
    GOOD,
    LATE,
    SIMULATED,
    SLOW,
    call,
    command,
    entries,
    kbopt,
    refusal,
    simulated,
    stdio,
)
from tests.support.processes import descendants, is_running

REVISION = "2025-06-18"
"""A revision of the protocol that begins with a handshake: the lines below speak it by hand."""


def start(out: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command("mcp", "--out", out, *arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def send(server: subprocess.Popen[str], *messages: object) -> None:
    assert server.stdin is not None
    for message in messages:
        server.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    server.stdin.flush()


def handshake(server: subprocess.Popen[str]) -> None:
    info = {"name": "test", "version": "1"}
    params = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": info}
    send(server, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    assert server.stdout is not None
    assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "kbopt"
    send(server, {"jsonrpc": "2.0", "method": "notifications/initialized"})


def request(number: int, tool: str, **arguments: object) -> dict[str, object]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 10
    while alive := [process for process in processes if is_running(process)]:
        assert time.monotonic() < deadline, f"{alive} outlived the server by 10 s"
        time.sleep(0.05)


@pytest.mark.slow
async def test_kernels_are_judged_and_progress_is_told(tmp_path: Path) -> None:
    told: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with stdio(tmp_path, *CPU) as client:
        task = await call(client, "tasks", name="quick/gelu")
        assert "class Model(nn.Module)" in task["tasks"][0]["source"]
        assert task["device"] == "local, cpu"
        result = await client.call_tool(
            "evaluate", {"task": "quick/gelu", "kernel": LATE}, progress_callback=on_progress
        )
        wrong = result.structured_content
        assert wrong["outcome"] == "wrong_answer"
        assert wrong["feedback"] != ""
        assert told[0].startswith("2 s: device ")
        good = await call(client, "evaluate", task="quick/gelu", kernel=GOOD)
        assert good["outcome"] == "measured", good
        assert good["speedup_ci"][0] < good["speedup"] < good["speedup_ci"][1]
        assert good["kernel_ms"] > 0.0
        profile = await call(client, "profile", against="c000002")
        assert profile["candidate"] == "c000002"
        assert profile["bound"] in ("memory", "compute", "latency", "launch")
        assert len(profile["figures"]) == 3
        assert profile["suggestion"] != ""
        assert "aten::gelu" in profile["text"]
        assert "Against the parent: nothing changed." in profile["text"]
        assert profile["tiers"] == {
            "code": "the source built no machine code of its own",
            "trace": "read",
            "counters": "hardware counters are read on NVIDIA GPUs only",
        }
        refused = await refusal(client, "profile", candidate="c000001")
        assert "only a kernel that was measured can be profiled" in refused
        assert (await call(client, "tasks"))["evaluations_left"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (None, 0)])
def test_its_end_ends_all_that_it_started_and_keeps_the_journal(
    number: int | None, code: int, tmp_path: Path
) -> None:
    with start(tmp_path, *CPU) as server:
        handshake(server)
        send(server, request(1, "evaluate", task="quick/gelu", kernel=SLOW))
        deadline = time.monotonic() + 20
        while len(family := descendants(server.pid)) < 3:
            assert time.monotonic() < deadline, "the evaluator did not start"
            time.sleep(0.1)
        if number is None:
            assert server.stdin is not None
            server.stdin.close()
        else:
            server.send_signal(number)
        assert server.wait(timeout=20) == code
    wait_until_gone(family)
    (proposed,) = [entry.event for entry in entries(tmp_path) if isinstance(entry.event, Proposed)]
    assert proposed.candidate.source == SLOW
    assert proposed.candidate.proposer == "agent:test"
    assert list(tmp_path.glob("*/report.html"))


def test_stdout_carries_messages_alone_and_garbage_ends_nothing(tmp_path: Path) -> None:
    server = start(tmp_path, *SIMULATED)
    handshake(server)
    send(server, "garbage", "{", "\x00\xff", "[]", '{"jsonrpc": "2.0", "id": 7, "method": "no/such"}')
    send(server, request(8, "no_such_tool"), request(9, "evaluate", task=3))
    send(server, request(10, "evaluate", task="sim/smooth", kernel=simulated(4)))
    answers: dict[object, dict[str, object]] = {}
    assert server.stdout is not None
    while 10 not in answers:
        message = json.loads(server.stdout.readline())
        answers[message.get("id")] = message
    assert "error" in answers[7]
    assert "isError" in str(answers[9])
    out, said = server.communicate(timeout=20)
    assert [json.loads(line) for line in out.splitlines()] == []
    assert server.returncode == 0, said
    assert "Traceback" not in said
    assert any(isinstance(entry.event, Evaluated) for entry in entries(tmp_path))


@pytest.mark.parametrize(
    ("line", "number", "code", "said"),
    [
        ("garbage", None, -32700, "the line: Invalid JSON"),
        ("[" * 100_000, None, -32700, "recursion limit"),
        ("[]", None, -32600, "Input should be an object"),
        ('{"id": 7, "method": "tools/list"}', 7, -32600, "jsonrpc: Field required"),
        ('{"jsonrpc": "2.0", "id": "a", "method": 5}', "a", -32600, "Input should be a valid string"),
        ('{"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": "x"}', 8, -32600, "(seen: 'x')"),
        (json.dumps(request(9, "tasks", name="\ud83d")), 9, -32700, "halves of characters"),
    ],
)
def test_a_line_that_is_no_message_is_answered_for_its_client_waits(
    line: str, number: object, code: int, said: str, tmp_path: Path
) -> None:
    server = start(tmp_path, *SIMULATED)
    handshake(server)
    send(server, "", line)
    assert server.stdout is not None
    answer = json.loads(server.stdout.readline())
    server.communicate(timeout=20)
    assert (answer["id"], answer["error"]["code"]) == (number, code)
    assert said in answer["error"]["message"]


@pytest.mark.slow
def test_resume_finishes_the_session_of_a_server_that_was_killed(tmp_path: Path) -> None:
    with start(tmp_path, *SIMULATED) as server:
        handshake(server)
        send(server, request(1, "evaluate", task="sim/smooth", kernel=simulated(12)))
        assert server.stdout is not None
        answer = json.loads(server.stdout.readline())["result"]["structuredContent"]
        server.kill()
    done = kbopt("resume", answer["run"], "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["proposals"], document["best"]["candidate"]) == (1, "c000001")
    assert document["ended"] == "the proposal was asked for"


async def test_two_calls_at_once_are_both_answered(tmp_path: Path) -> None:
    async with stdio(tmp_path, *SIMULATED) as client:
        both = await asyncio.gather(
            *(call(client, "evaluate", task="sim/smooth", kernel=simulated(level)) for level in (3, 4))
        )
    assert {answer["candidate"] for answer in both} == {"c000001", "c000002"}
