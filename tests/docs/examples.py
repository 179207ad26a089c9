"""The commands in the documentation: found in Markdown, told apart, and cut into words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "experiments" / "README.md", *sorted((ROOT / "docs").glob("*.md")))

SHELLS = ("", "console", "sh", "bash", "shell")
"""Tags of blocks in which every line is a command. Without a tag, one of the lines has to be ours."""

OTHERS = (
    "cd",
    "chmod",
    "claude",
    "cp",
    "curl",
    "export",
    "git",
    "mkdir",
    "modal",
    "openssl",
    "pytest",
    "python3",
    "ray",
    "rsync",
)
"""Programs of others that the documentation calls. A new one has to be written down here."""

FENCE = re.compile(
    r"^ *(?P<fence>```+) *(?P<tag>\w*)[^\n]*\n(?P<body>.*?)^ *(?P=fence) *$", re.DOTALL | re.MULTILINE
)
SPAN = re.compile(r"(?<!`)`((?:kbopt|make) [^`\n]+)`")
OURS = re.compile(r"(?:\S*/)?(?:kbopt|make)(?: |$)")


@dataclass(frozen=True, slots=True)
class Example:
    """One command line of a page. `words` are what a shell would pass, without comments."""

    page: Path
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def command_lines(page: Path) -> Iterator[Example]:
    """Every line of the page's blocks that is a command, with continued lines joined."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        lines = list(_joined(block["body"], _line_number(text, block.start("body"))))
        ours = [(number, line) for number, line in lines if OURS.match(line)]
        # A command may stand in a block of another kind too; it is checked all the same.
        is_shell = block["tag"] in SHELLS and (block["tag"] or ours)
        for number, line in lines if is_shell else ours:
            yield Example(page, number, line.strip())
    for number, line in _joined(FENCE.sub(_blank, text), 1):
        if line.startswith("    ") and OURS.match(line.strip()):
            yield Example(page, number, line.strip())


def command_spans(page: Path) -> Iterator[Example]:
    """Commands within sentences; they may leave out what does not matter there."""
    text = FENCE.sub(_blank, page.read_text())
    for span in SPAN.finditer(text):
        yield Example(page, _line_number(text, span.start()), span[1])


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The Python blocks of a page with the line on which each begins."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        if block["tag"] == "python":
            yield _line_number(text, block.start("body")), block["body"]


def _joined(body: str, first: int) -> Iterator[tuple[int, str]]:
    """Lines that are neither empty nor remarks, each with its number; backslashes continue a line."""
    pending, start = "", first
    for number, line in enumerate(body.splitlines(), start=first):
        if not pending:
            start = number
        pending += line
        if pending.endswith("\\"):
            pending = pending.removesuffix("\\")
            continue
        if pending.strip() and not pending.strip().startswith("#"):
            yield start, pending
        pending = ""


def _line_number(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _blank(block: re.Match[str]) -> str:
    return "\n" * block[0].count("\n")
