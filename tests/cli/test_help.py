"""`--help` is whole at 80 columns, in groups, with a word and the default of every option."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kbopt.cli import app
from kbopt.cli.grouped import GROUPS
from tests.support.unwritable import unwritable


def commands(
    command: click.Command = app, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, from the program itself to the last subcommand."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


COMMANDS = dict(commands())


def invoke(*words: str) -> str:
    """What the program says, on a terminal of 80 columns, to stdout and stderr."""
    return CliRunner().invoke(app, [*words], terminal_width=80).output


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_summaries_of_commands_are_not_cut(path: tuple[str, ...]) -> None:
    listed = invoke(*path, "--help").partition("\nCommands:\n")[2]
    assert [line for line in listed.splitlines() if line.endswith("...")] == []
    assert max(map(len, listed.splitlines()), default=0) <= 80


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_has_a_word_and_shows_its_default(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    context = click.Context(command, info_name="kbopt", parent=click.Context(app, **app.context_settings))
    for param in command.params:
        if isinstance(param, click.Option):
            record = param.get_help_record(context)
            assert record is not None
            assert param.help, f"{record[0]} has no help"
            assert param.is_flag or param.required or re.search("default", record[1], re.IGNORECASE), record


@pytest.mark.parametrize("name", ["run", "sweep", "bench", "eval", "audit", "doctor", "mcp", "serve"])
def test_many_options_come_in_groups(name: str) -> None:
    titles = re.findall(r"^(\w+) options:$", invoke(name, "--help"), re.MULTILINE)
    assert titles == [group for group in GROUPS if group in titles]
    assert {"Basic", "Device", "Expert"} <= set(titles)
    assert (titles == list(GROUPS)) == (name in ("run", "sweep", "bench"))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("run", "quick/gelu"), "--task quick/gelu"),
        (("run", "--seed", "1", "mine.py"), "--task mine.py"),
        (("doctor", "quick/gelu"), "--task quick/gelu"),
        (("eval", "kernel.py"), "--kernel kernel.py"),
        (("eval", "quick/gelu"), "--task quick/gelu"),
        (("bench", "matmul"), "--tasks matmul"),
        (("sweep", "matmul"), "--tasks matmul"),
    ],
)
def test_a_word_that_stands_alone_is_answered_with_the_option(words: tuple[str, ...], meant: str) -> None:
    said = invoke(*words)
    assert f"stands alone. Did you mean {meant}?" in said


def test_a_sweep_that_is_misspelt_names_its_subcommands() -> None:
    assert "Subcommands: results, resume, status, stop" in invoke("sweep", "statsu")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--device", "tpu"), "unknown device 'tpu'. Allowed: auto, cpu, cuda"),
        (("eval", "--kernel", "k.py", "--device", "cuda:x"), "unknown device 'cuda:x'"),
        (("export", "first", "--out", "/dev/null/x.py"), "/dev/null is no folder"),
        (("report", "first", "--out", "/dev/null/x.html"), "/dev/null is no folder"),
        (("eval", "--kernels", "k", "--out", "/dev/null/x.jsonl"), "/dev/null is no folder"),
        (("export", "first", "--out", "/"), "/ is a folder"),
        (("run", "--max-usd", "nan"), "nan is no finite number"),
        (("run", "--max-minutes", "inf"), "inf is no finite number"),
        (("modal", "deploy", "--warm-minutes", "nan"), "nan is no finite number"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_before_anything_starts(
    words: tuple[str, ...], said: str
) -> None:
    assert said in invoke(*words)


@pytest.mark.parametrize("words", [("export", "first"), ("eval", "--kernels", "k"), ("tasks", "--admit")])
def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.touch(0o444)
    with unwritable(tmp_path):
        assert f"{tmp_path} may not be written to" in invoke(*words, "--out", str(tmp_path / "new"))
        assert f"{kept} may not be written to" in invoke(*words, "--out", str(kept))


def test_a_run_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kbopt.cli.values import RunFolder, sweep_folder

    monkeypatch.chdir(tmp_path)
    for folder in ("runs/first", "sweeps/trial/gelu-PS-s0", "elsewhere"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "journal.sqlite").touch()
    (Path("sweeps") / "trial" / "sweep.json").touch()
    found = {
        name: RunFolder().convert(name, None, None)
        for name in ("first", "trial/gelu-PS-s0", "elsewhere", "no")
    }
    assert found == {
        "first": Path("runs/first"),
        "trial/gelu-PS-s0": Path("sweeps/trial/gelu-PS-s0"),
        "elsewhere": Path("elsewhere"),
        "no": Path("no"),
    }
    assert sweep_folder("trial", Path("sweeps")) == sweep_folder("sweeps/trial", Path("sweeps"))
    assert sweep_folder("other", Path("sweeps")) == Path("sweeps/other")
