"""What a candidate can reach, where the service is root's and where it is an ordinary user's."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbopt.evaluation.sandbox import confinement
from tests.evaluation.conftest import ELEMENTWISE
from tests.support import ordinary_user
from tests.support.openai_server import Answer, OpenAIServer, Script

ROOT = Path(__file__).resolve().parents[2]

JUDGE = """
import asyncio, json, sys
from pathlib import Path
from kbopt.core.evaluations import EvalRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

async def judge(state, task, sources):
    client = ServiceClient(device="cpu", state_dir=Path(state))
    info = await client.open()
    protocol = EvalProtocol(trials=1, timed=5, timeout_s=20, compile_timeout_s=20)
    task = Task(name="t", source=task)
    requests = [EvalRequest(task=task, source=one, protocol=protocol) for one in sources]
    try:
        results = [await client.evaluate(request) for request in requests]
    finally:
        await client.close()
    seen = [(type(one.outcome).__name__, getattr(one.outcome, "reason", "")) for one in results]
    return {"isolation": info.isolation, "is_isolated": info.is_isolated, "seen": seen}

print(json.dumps(asyncio.run(judge(*json.load(sys.stdin)))))
"""

REPORT = """
import ctypes, json, os, socket

libc = ctypes.CDLL(None, use_errno=True)

def tried(what):
    try:
        return str(what())[:40]
    except Exception as error:
        return type(error).__name__

def connected():
    socket.create_connection(("127.0.0.1", {port}), 2)
    return "connected"

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "granted"

report = json.dumps({{
    "secrets": [tried(lambda: open(path).read()) for path in {secrets}],
    "network": tried(connected),
    "home": tried(lambda: open({home} + "/planted", "w")),
    "judge": tried(lambda: os.kill({pid}, 0)),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "ipc": os.readlink("/proc/self/ns/ipc"),
    "system": tried(lambda: open("/usr/planted", "w")),
    "package": tried(lambda: open({package} + "/planted", "w")),
    "user_namespace": tried(lambda: call({unshare}, 0x10000000)),
    "mounts": tried(lambda: call({unshare}, 0x00020000)),
    "userfaultfd": tried(lambda: call({userfaultfd}, 1)),
    "scratch": tried(lambda: open("mine", "w").write("x")),
}})
raise RuntimeError(report)
"""

WORKING = """
import os, subprocess, getpass, threading
import torch

class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
        assert os.waitstatus_to_exitcode(os.system("exit 4")) == 4
        os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "true"], dict(os.environ)), 0)
        threading.Thread(target=getpass.getuser).start()

    def forward(self, x):
        return torch.tanh(x) * 2 + x
"""


class Found:
    """What candidates said of one service's sandbox."""

    def __init__(self, answer: dict[str, Any], home: Path) -> None:
        self.home = home
        self.isolation: str = answer["isolation"]
        self.is_isolated: bool = answer["is_isolated"]
        (kind, report), self.working = answer["seen"]
        assert kind == "CompileFailed", report
        self.report: dict[str, Any] = json.loads(report[report.index('{"secrets') : report.rindex("}") + 1])


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    is_x86 = os.uname().machine == "x86_64"
    home = Path(tempfile.mkdtemp(prefix="home-"))
    elsewhere = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="elsewhere-"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        secrets = [home / "secret", elsewhere / "secret"]
        for secret in secrets:
            secret.touch(mode=0o600)
            secret.write_text("hunter2")
        source = REPORT.format(
            port=server.getsockname()[1],
            secrets=[str(secret) for secret in secrets],
            home=repr(str(home)),
            pid=os.getpid(),
            package=repr(str(ROOT / "kbopt")),
            unshare=272 if is_x86 else 97,
            userfaultfd=323 if is_x86 else 282,
        )
        command = [sys.executable, "-c", JUDGE]
        if request.param != "this user":
            for folder in (home, elsewhere):
                command = ordinary_user.command(folder, sys.executable, "-c", JUDGE)
        done = subprocess.run(
            command,
            input=json.dumps([str(home / "state"), ELEMENTWISE, [source, WORKING]]),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield Found(json.loads(done.stdout), home)
    for folder in (home, elsewhere):
        shutil.rmtree(folder)


def test_a_candidate_is_isolated_whoever_runs_the_service(found: Found):
    assert found.is_isolated, found.isolation
    for kind in ("processes", "mounts", "network", "user", "calls", "counted"):
        assert kind in found.isolation


def test_it_reads_no_file_that_is_the_users_alone(found: Found):
    assert set(found.report["secrets"]) <= {"FileNotFoundError", "PermissionError"}


def test_it_writes_to_its_scratch_folder_only(found: Found):
    refused = {"FileNotFoundError", "PermissionError", "OSError"}
    assert {found.report[place] for place in ("system", "package")} <= refused
    assert not (found.home / "planted").exists()
    assert found.report["scratch"] == "1"


def test_it_meets_nobody_outside(found: Found):
    assert found.report["network"] == "OSError"
    assert found.report["judge"] == "ProcessLookupError"
    assert found.report["processes"] == 2
    assert found.report["ipc"] != str(Path("/proc/self/ns/ipc").readlink())


@pytest.mark.parametrize("call", ["user_namespace", "mounts", "userfaultfd"])
def test_it_cannot_have_privileges_in_a_world_of_its_own_or_serve_memory(found: Found, call: str):
    assert found.report[call] == "PermissionError"


def test_programs_can_be_started_in_every_usual_way(found: Found):
    assert found.working == ["Measured", ""], found.working


def test_folders_of_programs_are_shown_with_what_is_around_them_but_not_with_the_users_own(tmp_path: Path):
    own, shown = tmp_path / "own" / "bin", Path("/usr/bin")
    own.mkdir(parents=True)
    environ = {"PATH": f"{own}:{shown}:/bin:relative:/nowhere", "CUDA_HOME": "/usr/lib"}
    found = confinement.toolchain_paths(environ)

    assert own in found
    assert own.parent not in found
    assert Path("/") not in found
    assert confinement.toolchain_paths({"PATH": "/usr/local/bin"}) == [
        Path("/usr/local/bin" if os.geteuid() == 0 else "/usr/local")
    ]


def test_of_a_checkout_only_the_package_is_shown():
    found = confinement.interpreter_paths()

    assert ROOT / "kbopt" in found
    assert ROOT not in found


WITHOUT = """
import asyncio, json, sys
from pathlib import Path
from kbopt.compose.searches import factories
from kbopt.config import BackendConfig, ProposerConfig
from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task

async def opened(proposer, no_sandbox):
    config = BackendConfig(device="cpu", no_sandbox=no_sandbox)
    backend = factories(config, ProposerConfig(name=proposer), Path("run")).backend()
    task = Task(name="t", source=sys.argv[1])
    request = EvalRequest(task=task, source=sys.argv[2], protocol=EvalProtocol(trials=1, timed=10))
    try:
        status = await backend.open()
        (result,) = await backend.evaluate([request])
        return status.warning, result.outcome.audit.notes[0]
    except UserError as error:
        return "refused", str(error)
    finally:
        await backend.close()

answers = [("llm", False), ("llm+tunables", False), ("llm", True), ("tunables", False)]
print(json.dumps([asyncio.run(opened(*answer)) for answer in answers]))
"""


@pytest.fixture(scope="module")
def without_namespaces() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="home-"))
    yield home
    shutil.rmtree(home)


def run_without(home: Path, *program: str) -> subprocess.CompletedProcess[str]:
    command = ordinary_user.command(home, sys.executable, *program, namespaces=False)
    places = {"PYTHONPATH": str(ROOT), "KBOPT_CACHE": str(home / "cache")}
    environ = {**os.environ, **places, "OPENAI_API_KEY": "any"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_without_namespaces_models_kernels_are_refused_unless_the_user_wants_them(without_namespaces: Path):
    own_code = f"{ELEMENTWISE}\nModelNew = Model\n"
    done = run_without(without_namespaces, "-c", WITHOUT, ELEMENTWISE, own_code)

    assert done.returncode == 0, done.stderr
    only, mixed, allowed, tunables = json.loads(done.stdout)
    for kind, text in (only, mixed):
        assert kind == "refused"
        assert text.startswith("NO SANDBOX: ")
        assert "give --no-sandbox" in text
    for warning, note in (allowed, tunables):
        assert warning.startswith("NO SANDBOX: ")
        assert "isolated calls, counted" in warning
        assert note.startswith("No sandbox: ")
    assert done.stderr.count("NO SANDBOX: ") == 2


def test_without_namespaces_doctor_fails_with_a_remedy(without_namespaces: Path):
    done = run_without(
        without_namespaces, "-m", "kbopt", "doctor", "--task", "quick/matmul", "--device", "cpu"
    )

    assert done.returncode != 0, done.stdout
    assert "isolate candidates: NO SANDBOX: " in done.stdout
    assert "sysctl user.max_user_namespaces" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_namespaces_a_search_by_a_model_ends_before_its_first_candidate(without_namespaces: Path):
    answer = Answer(text=f"```python\n{ELEMENTWISE}\nModelNew = Model\n```\n")
    search = ("run", "--task", "quick/matmul", "--device", "cpu", "--max-evals", "1", "--out", "run")
    with OpenAIServer(Script(behaviours=(answer,))) as server:
        model = ("--proposer", "llm", "--model", "openai/scripted", "--api-base", server.url)
        refused = run_without(without_namespaces, "-m", "kbopt", *search, *model)

    assert refused.returncode == 2, refused.stderr
    assert "NO SANDBOX: " in refused.stderr
    assert "give --no-sandbox" in refused.stderr
