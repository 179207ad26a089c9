"""Every command of the documentation is checked, and the cheap ones are run."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest

from kbopt.core.errors import UserError
from tests.docs import commands
from tests.docs.examples import PAGES, ROOT, Example, command_lines, command_spans, python_blocks
from tests.support import formats

LINES = [example for page in PAGES for example in command_lines(page)]
SPANS = [example for page in PAGES for example in command_spans(page)]
CHEAP = {page: commands.cheap([one for one in LINES if one.page == page]) for page in PAGES}
BLOCKS = [(page, line, source) for page in PAGES for line, source in python_blocks(page)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the folders whose existence an option or a task's name asks for."""
    (tmp_path / "my-prompts").mkdir()
    formats.write_sol(tmp_path / "problems" / "rmsnorm")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", LINES, ids=str)
def test_command_in_a_block_parses_and_names_what_exists(example: Example, folder: Path) -> None:
    commands.check(example)


@pytest.mark.parametrize("example", SPANS, ids=str)
def test_command_in_a_sentence_names_commands_and_options_that_exist(example: Example) -> None:
    commands.check_span(example)


@pytest.mark.parametrize(
    "text",
    [
        "kbopt frobnicate",
        "kbopt run --tsk quick/gelu",
        "kbopt run --task quick/gelo",
        "kbopt run --algorithm PSS",
        "kbopt run --max-evals none",
        "kbopt sweep --algorithms PS,PSS",
        "kbopt sweep --tasks quick/gelu,sim/flat",
        "kbopt sweep --seeds many",
        "kbopt sweep cancel NAME",
        "kbopt run --backend modal --gpu L50S",
        "kbopt run --proposer llm --model openai/gpt-5:-1",
        "make install",
        "make run ARGS='--steps 20'",
        "ray submit ray_cluster.yaml experiments/sweep.py --seed 5",
        "ray exec ray_cluster.yaml 'cd ~/kbopt && kbopt sweep state sweep'",
        "wget --version",
        "python3 -m kbopt.evaluation drain",
        "sbatch experiments/slurm.sh DIR",
    ],
)
def test_a_command_that_would_fail_is_found(text: str, folder: Path) -> None:
    with pytest.raises((click.ClickException, UserError, AssertionError, ValueError, SystemExit)):
        commands.check(Example(ROOT / "README.md", 1, text))


@pytest.mark.parametrize(
    "text", ["kbopt sweep status|cancel NAME", "kbopt report RUN --browser", "make install"]
)
def test_a_sentence_that_is_wrong_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        commands.check_span(Example(ROOT / "README.md", 1, text))


def test_commands_are_found_in_blocks_of_every_kind(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n# remark\nkbopt run \\\n    --seed 1\ncurl x\n```\n"
        "```text\noutput\nkbopt tasks\n```\n"
        "```\nno command\n```\n"
        "Text:\n\n    kbopt runs\n\nand `kbopt doctor`.\n"
    )
    found = [(example.line, example.text) for example in command_lines(page)]
    assert found == [(3, "kbopt run     --seed 1"), (5, "curl x"), (9, "kbopt tasks"), (16, "kbopt runs")]
    assert [example.text for example in command_spans(page)] == ["kbopt doctor"]


def test_the_quickstart_and_the_tutorial_are_among_the_commands(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = Counter(commands.check(example) for example in LINES)
    ours = kinds["kbopt"] + kinds["make"] + kinds["ray"]
    run = sum(map(len, CHEAP.values()))
    with capsys.disabled():
        print(
            f"\ndocumentation: {len(LINES)} commands in blocks, {ours} parsed, {run} of them run by slow "
            f"tests, {len(LINES) - ours} of other programs; {len(SPANS)} in sentences, their options checked"
        )
    texts = {example.text for example in LINES}
    assert {"make run", "kbopt tasks", ".venv/bin/kbopt doctor --backend modal --gpu L40S"} <= texts
    assert [one.words[1] for one in CHEAP[ROOT / "docs" / "tutorial.md"]] == (
        ["tasks", "run", "runs", "show", "report", "export", *["resume"] * 2, "eval", *["sweep"] * 3]
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if CHEAP[page]], ids=lambda page: str(page.relative_to(ROOT))
)
def test_cheap_commands_of_a_page_run_in_their_order(page: Path, folder: Path) -> None:
    for example in CHEAP[page]:
        done = subprocess.run(
            [sys.executable, "-m", "kbopt", *example.words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{example}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("page", "line", "source"), BLOCKS, ids=[f"{p.name}:{n}" for p, n, _ in BLOCKS])
def test_python_in_the_documentation_imports_what_exists(page: Path, line: int, source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kbopt"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{page.name}:{line}: {node.module} has no {name.name}"
