"""Without its optional parts kbopt searches, and names the part that an option needs."""

import subprocess
import sys
from pathlib import Path

import pytest

HIDDEN = ("mcp", "wandb", "wandb_workspaces", "modal", "litellm", "pyarrow", "huggingface_hub")
WITHOUT = (
    "import sys\n"
    f"sys.modules.update(dict.fromkeys({HIDDEN!r}))\n"  # to Python a module that is None is not installed
    "from kbopt.cli import main\n"
    "main()\n"
)
SIMULATED = ("--task", "sim/smooth", "--backend", "simulated", "--proposer", "simulated")


def kbopt(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_search_its_listing_and_its_page_need_no_optional_part(tmp_path: Path) -> None:
    done = kbopt(tmp_path, "run", *SIMULATED, "--max-evals", 5, "--verbose", "--out", "run")
    assert done.returncode == 0, done.stderr
    for command in (("runs", "."), ("report", "run"), ("show", "run"), ("tasks",)):
        done = kbopt(tmp_path, *command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("wandb", ("run", *SIMULATED, "--use-wandb")),
        ("wandb", ("sweep", "--tasks", "sim/smooth", "--use-wandb")),
        ("wandb", ("wandb-dashboard", "--project", "p")),
        ("modal", ("run", "--backend", "modal")),
        ("modal", ("sweep", "--backend", "modal")),
        ("modal", ("eval", "--task", "quick/gelu", "--kernel", __file__, "--backend", "modal")),
        ("modal", ("doctor", "--backend", "modal")),
        ("modal", ("modal", "status")),
        ("llm", ("run", "--proposer", "llm", "--model", "openai/gpt-5")),
        ("llm", ("sweep", "--proposer", "llm+tunables", "--model", "openai/gpt-5")),
        ("kernelbench", ("run", "--task", "level1/12")),
        ("mcp", ("mcp", "--tasks", "quick/gelu")),
    ],
)
def test_an_option_that_needs_an_optional_part_names_it_and_leaves_no_run(
    extra: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = kbopt(tmp_path, *arguments)
    assert done.returncode == 2
    assert f"pip install 'kbopt[{extra}]'" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
