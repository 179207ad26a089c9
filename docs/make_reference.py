"""An mkdocs hook: writes the pages that would go stale if a person wrote them.

- `reference/commands.md`: the `--help` of every command, from the commands themselves;
- `decisions/index.md`: the decisions by title, from the files; each is added to the navigation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kbopt.cli import app

HELP_WIDTH = 96
TITLE = re.compile(r"^# \d{4} (?P<title>.+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Decisions" in entry:
            entry["Decisions"] += [
                {f"{path.name[:4]} {_title(path)}": f"decisions/{path.name}"} for path in _decisions(config)
            ]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/commands.md": commands_page(),
        "decisions/index.md": decisions_page(_decisions(config)),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_page() -> str:
    """Every command with its options, as `--help` prints them."""
    parts = ["# Commands\n\nEach page of `--help`. Defaults are those of the code.\n"]
    for name, text in help_texts(app, "kbopt"):
        parts.append(f"## `{name}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def help_texts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The full name and the help of `command` and of all commands below it."""
    settings: dict[str, Any] = {**command.context_settings, "max_content_width": HELP_WIDTH}
    context = click.Context(
        command, info_name=name.split()[-1], parent=parent, terminal_width=HELP_WIDTH, **settings
    )
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from help_texts(found, f"{name} {below}", context)


def decisions_page(decisions: list[Path]) -> str:
    """A table of the decisions by number."""
    rows = [f"| {path.name[:4]} | [{_title(path)}]({path.name}) |" for path in decisions]
    return "\n".join(
        [
            "# Decisions",
            "",
            "Why things are as they are: half a page each, with what was rejected and what was measured.",
            "",
            "| number | decision |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _decisions(config: MkDocsConfig) -> list[Path]:
    return sorted(Path(config.docs_dir, "decisions").glob("[0-9]*.md"))


def _title(path: Path) -> str:
    found = TITLE.search(path.read_text())
    if found is None:
        raise ValueError(f"{path} has no title; its first line has to be '# NUMBER TITLE'")
    return found["title"]
