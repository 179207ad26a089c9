"""`kbopt run` where batch systems and launchers set the environment: it runs, or says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kbopt.cluster.ray_start import LONGEST_TMPDIR, _ray_folder
from kbopt.core.errors import UserError
from tests.cli.test_run import SIMULATED, command

SEARCH = command("run", *SIMULATED, "--max-evals", 3, "--out", "found")


def run_in(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_folder_for_temporary_files_may_have_a_long_path(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch-of-a-batch-system" / "user-with-a-long-name" / "job-1355700"
    scratch.mkdir(parents=True)
    assert len(str(scratch)) > LONGEST_TMPDIR
    done = run_in(tmp_path, *SEARCH, TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_launcher_that_manages_a_project_leaves_the_workers_in_this_environment(tmp_path: Path) -> None:
    """Ray looks for `uv run` among its parents, and would install the project anew for each worker."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "0"\n')
    below = tmp_path / "below"
    below.mkdir()
    (below / "run").write_text('"$@"\nexit $?\n')  # so that the shell that is called uv is told `run`
    done = run_in(below, "bash", "-c", 'exec -a uv bash run "$@"', "-", *SEARCH)
    assert done.returncode == 0, done.stderr
    assert (below / "found" / "best.py").exists()


@pytest.mark.parametrize("usual", ["/nowhere", "relative", "/tmp/" + "x" * 40])
def test_a_folder_that_does_not_do_for_sockets_has_a_substitute_or_is_named(
    usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", usual)
    assert _ray_folder() == f"/tmp/ray-{os.getuid()}"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=f"{usual}, does not do for Ray's sockets.*RAY_TMPDIR"):
        _ray_folder()


def test_the_usual_folder_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert _ray_folder() is None


SHADOWS = ("copy", "inspect", "profile", "queue", "random", "torch", "kbopt")
"""Modules that Ray's workers and the evaluation service import, and names that kernels may well have."""
KERNEL = """import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x, approximate="tanh")
"""


@pytest.mark.slow
def test_kernels_that_are_called_as_modules_are_do_not_take_their_places(tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working directory')\n")
    (tmp_path / "copy.py").write_text(KERNEL)
    program = (sys.executable, "-P", "-m", "kbopt")  # looks for modules where the program `kbopt` does
    done = run_in(tmp_path, *program, *map(str, SEARCH[3:]))
    assert done.returncode == 0, done.stderr
    kernel = ("--kernel", "copy.py", "--device", "cpu", "--trials", "1", "--timed", "10", "--json")
    judged = run_in(tmp_path, *program, "eval", "--task", "quick/gelu", *kernel)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["outcome"] == "measured"
