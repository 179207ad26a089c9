"""`kbopt run --use-wandb` where W&B is switched off or dies: the search does not notice."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from kbopt.follow import WandbOptions
from tests.cli.test_run import SIMULATED, kbopt, start
from tests.support.processes import descendants

WANDB = ("--use-wandb", "--project-name", "p")

pytestmark = pytest.mark.slow


def service_of(pid: int, timeout_s: float = 60.0) -> int:
    """W&B's own process below `pid`, once there is one."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for child in descendants(pid):
            command = Path(f"/proc/{child}/cmdline")
            if command.exists() and b"wandb-core" in command.read_bytes():
                return child
        time.sleep(0.05)
    raise TimeoutError(f"no wandb-core below {pid} within {timeout_s:g} s")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "disabled", "Weights & Biases logs nothing: WANDB_MODE=disabled. Unset it, or"),
        ("WANDB_DISABLED", "true", "Weights & Biases logs nothing: WANDB_DISABLED=true. Unset it, or"),
        ("WANDB_MODE", "offline", "Weights & Biases stays offline: WANDB_MODE=offline. `wandb sync`"),
    ],
)
def test_off_or_offline_by_the_environment_nothing_goes_online(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(variable, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv(name, value)
        done = kbopt("run", *SIMULATED, "--max-evals", 3, "--out", tmp_path / "run", *WANDB)
        nobody.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody called
            nobody.accept()
    assert done.returncode == 0
    assert done.stderr.count("Weights & Biases") == done.stderr.count(said) == 1
    assert len(list(tmp_path.rglob("*.wandb"))) == (value == "offline")


def test_what_is_disabled_may_be_asked_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DISABLED", "1")
    assert WandbOptions.of("p", None, said.append) is None
    assert WandbOptions.of("p", "offline", said.append) == WandbOptions(project="p", mode="offline")
    monkeypatch.setenv("WANDB_DISABLED", "false")
    assert WandbOptions.of("p", None, said.append) == WandbOptions(project="p")
    assert len(said) == 1


def test_a_killed_service_ends_the_logging_and_not_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = start("run", *SIMULATED, "--num-steps", 40, "--out", tmp_path / "run", *WANDB)
    service = service_of(run.pid)
    time.sleep(2.0)
    os.kill(service, signal.SIGKILL)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "next: kbopt report" in output
    assert "The search goes on; its journal holds everything." in errors
    assert "Traceback" not in errors
