"""`kbopt serve`: real clients over the loopback, one evaluator, and who is let in."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kbopt.core.events import Proposed
from tests.support.agents import SIMULATED, TOKEN, entries, http_server, kbopt, simulated

DOCUMENT = Path(__file__).parents[2] / "docs" / "agents.md"


@contextmanager
def served(out: Path, *arguments: object) -> Iterator[Callable[[str], httpx2.Client]]:
    """What makes a client of the server for the session of a name."""
    with http_server(out, *arguments, what="serve") as (_, url):

        def client(session: str = "") -> httpx2.Client:
            headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "tuner/1.2"}
            if session:
                headers["Kbopt-Session"] = session
            return httpx2.Client(base_url=url, headers=headers, timeout=60)

        yield client


def done(client: httpx2.Client, call: str, **body: Any) -> dict[str, Any]:
    """The answer of a job, asked for until it is there."""
    job = client.post(f"/{call}", json=body).json()
    while job["state"] == "running":
        job = client.get(f"/jobs/{job['job']}", params={"wait_s": 20}).json()
    assert job["call"] == call
    return job


def kernels(*sources: str) -> list[dict[str, str]]:
    return [{"kernel": source} for source in sources]


def test_a_session_is_a_run_that_report_and_resume_understand(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED, "--max-evals", 4) as session, session("mine") as client:
        names = [task["name"] for task in client.get("/tasks").json()["tasks"]]
        assert names == ["sim/smooth", "sim/rugged"]
        assert client.get("/tasks", params={"name": "sim/smooth"}).json()["tasks"][0]["source"]
        many = done(
            client,
            "evaluate",
            task="sim/smooth",
            kernels=[
                {"kernel": simulated(2), "note": "first"},
                {"kernel": "class ModelNew: pass"},
                {"kernel": simulated(12)},
                {"kernel": " "},
                {"kernel": simulated(3)},
                {"kernel": simulated(4)},
            ],
        )
        assert many["state"] == "done"
        answers = many["answer"]["evaluations"]
        assert [answer.get("outcome", answer.get("error")) for answer in answers][:5] == [
            *("measured", "compile_failed", "measured", "refused", "measured")
        ]
        assert "the kernel is empty" in answers[3]["message"]
        assert answers[0]["speedup"] < answers[2]["speedup_ci"][0] <= answers[2]["speedup"]
        assert "all 4 evaluations (--max-evals 4)" in answers[-1]["message"]
        history = client.get("/history").json()
        assert history["evaluations_left"] == 0
        assert {row["note"] for row in history["evaluations"]} == {"first", ""}
        best = client.get("/best").json()
        assert best["kernel"] == simulated(12)
        refused = done(client, "profile")
        assert (refused["state"], refused["answer"]["error"]) == ("failed", "refused")
        assert "this backend has no profiles" in refused["answer"]["message"]
        answer = done(client, "submit", candidate=best["candidate"])["answer"]
        assert answer["candidate"] == best["candidate"]
        assert Path(answer["winner_file"]).read_text() == simulated(12)
    folder = Path(answer["report"]).parent
    (row,) = json.loads(kbopt("runs", tmp_path, "--json").stdout)
    assert row["ended"] == f"submitted {best['candidate']}"
    proposed = [entry.event for entry in entries(tmp_path) if isinstance(entry.event, Proposed)]
    assert {event.candidate.proposer for event in proposed} == {"agent:tuner"}
    assert folder.parent == tmp_path


def test_what_is_no_call_is_turned_away_with_what_is_allowed(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED) as session, session("") as client:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN[:-1]}g"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = httpx2.post(f"{client.base_url}evaluate", content="{}", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, "no_token")
            assert "--token-env" in answer.json()["message"]

        def problem(method: str, path: str, **request: Any) -> tuple[int, str, str]:
            answer = client.request(method, path, **request)
            return (answer.status_code, *answer.json().values())

        for body, said in (
            (b"garbage", "Invalid JSON"),
            (b"\xff\xfe{", "Invalid JSON"),
            (b"[1]", "the body: Input should be an object"),
            (b'{"task": "sim/smooth"}', "kernels: Field required"),
            (b'{"task": "sim/smooth", "kernels": []}', "at least 1 item"),
            (
                json.dumps({"task": "sim/smooth", "kernels": kernels(*["x"] * 65)}).encode(),
                "at most 64 items",
            ),
            (
                b'{"task": "sim/smooth", "kernels": [{"kernel": "x", "not": 1}]}',
                "kernels.0.not: Extra inputs",
            ),
            (b'{"task": "sim/smooth", "kernels": [{"kernel": "\\ud800"}]}', "Invalid JSON"),
            (b"[" * 100_000, "Invalid JSON"),
        ):
            status, error, message = problem("POST", "/evaluate", content=body)
            assert (status, error) == (400, "bad_request")
            assert said in message, message
        unknown = {"task": "sim/smoth", "kernels": kernels("x = 1")}
        assert problem("POST", "/evaluate", json=unknown)[:2] == (422, "refused")
        assert "Did you mean sim/smooth" in problem("POST", "/evaluate", json=unknown)[2]
        assert problem("GET", "/tasks", params={"nam": "x"})[:2] == (400, "bad_request")
        assert "less than or equal to 50" in problem("GET", "/jobs/j1", params={"wait_s": 51})[2]
        assert problem("GET", "/jobs/j1")[:2] == (404, "not_found")
        assert problem("GET", "/nothing")[:2] == (404, "not_found")
        assert problem("GET", "/evaluate")[:2] == (405, "wrong_method")
        assert "nothing was evaluated in this session yet" in problem("GET", "/best")[2]
        status, error, message = problem("POST", "/evaluate", content=b" " * (2**25 + 1))
        assert (status, error) == (413, "too_large")
        assert "at most" not in message
        assert "33,554,432 bytes" in message
        at = (client.base_url.host, client.base_url.port)
        with socket.create_connection(at) as raw:  # It says how large its body is, and need not send it.
            raw.sendall(
                f"POST /v1/evaluate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Content-Length: 99999999999\r\n\r\n".encode()
            )
            raw.settimeout(30)
            assert b"413" in raw.recv(100)
        with socket.create_connection(at) as raw:
            raw.sendall(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
            assert b"400" in raw.recv(100)
        assert client.get("/tasks").status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_two_clients_at_once_have_sessions_and_budgets_of_their_own(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED, "--max-evals", 1) as session:

        def work(name: str) -> dict[str, Any]:
            with session(name) as client:
                done(client, "evaluate", task="sim/smooth", kernels=kernels(simulated(4)))
                jobs = client.get("/jobs").json()["jobs"]
                return {"job": jobs[0]["job"], "num_jobs": len(jobs), **client.get("/history").json()}

        with ThreadPoolExecutor(2) as threads:
            one, two = threads.map(work, ("one", "two"))
        for each in (one, two):
            assert (each["num_jobs"], len(each["evaluations"]), each["evaluations_left"]) == (1, 1, 0)
        with session("one") as client:
            assert client.get(f"/jobs/{two['job']}").status_code == 404
    assert len(list(tmp_path.glob("*/journal.sqlite"))) == 2


def test_the_description_names_each_call_and_every_type_that_it_uses(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED) as session, session("") as client:
        document = client.get("/openapi.json").json()
    assert sorted(document["paths"]) == [
        *("/v1/best", "/v1/evaluate", "/v1/history", "/v1/jobs", "/v1/jobs/{job}"),
        *("/v1/profile", "/v1/submit", "/v1/tasks"),
    ]
    schemas = document["components"]["schemas"]
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used <= set(schemas)
    assert {"Evaluation", "Evidence", "Submission", "Problem"} <= used
    assert schemas["ToEvaluate"]["required"] == ["task", "kernels"]
    (wait, session_header) = document["paths"]["/v1/evaluate"]["post"]["parameters"]
    assert (wait["name"], wait["schema"]["maximum"]) == ("wait_s", 50.0)
    assert session_header["in"] == "header"


def test_the_job_of_a_client_that_hung_up_goes_on_and_is_found(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED) as session, session("mine") as client:
        at = client.base_url
        body = json.dumps({"task": "sim/smooth", "kernels": kernels(simulated(4))}).encode()
        head = (
            f"POST /v1/evaluate?wait_s=50 HTTP/1.1\r\nHost: {at.host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Kbopt-Session: mine\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        for sent in (head + body[:10], head + body):
            with socket.create_connection((at.host, at.port)) as gone:
                gone.sendall(sent)
        deadline = time.monotonic() + 20
        while not (jobs := client.get("/jobs").json()["jobs"]):
            assert time.monotonic() < deadline, "the request of the client that hung up was not taken"
            time.sleep(0.05)
        (job,) = jobs
        found = client.get(f"/jobs/{job['job']}", params={"wait_s": 50}).json()
        assert found["answer"]["evaluations"][0]["outcome"] == "measured"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_example_of_the_documents_works_with_curl(tmp_path: Path) -> None:
    example = re.search(r"```bash\n(python3 .*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "kernel.py").write_text(simulated(12))
    with http_server(tmp_path / "runs", *SIMULATED, what="serve") as (_, url):
        script = (
            example[1]
            .replace("http://127.0.0.1:8000/v1", url)
            .replace("-s ", "-sSw '\\n' ")
            .replace("quick/gelu", "sim/smooth")
        )
        ran = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env={**os.environ, "KBOPT_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    judged, submitted = (json.loads(line) for line in ran.stdout.splitlines())
    assert judged["answer"]["evaluations"][0]["outcome"] == "measured"
    assert submitted["answer"]["winner"] == "c000001"
