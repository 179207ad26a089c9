"""What a stranger reads first: where the algorithm comes from, words that are explained, a GPU's figures."""

import ast
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from kbopt.cli import app
from tests.docs.examples import ROOT

README = (ROOT / "README.md").read_text()
GLOSSARY = (ROOT / "docs" / "architecture.md").read_text().partition("## Words")[2]
BENCHMARK = (ROOT / "docs" / "kernelbench.md").read_text()
PAPER = "https://arxiv.org/abs/2603.14769"


def explained() -> set[str]:
    """The words in the first columns of the tables of the README, the glossary and the benchmark."""
    rows = re.findall(r"^\| ([^|]+) \|", README + GLOSSARY + BENCHMARK, re.MULTILINE)
    return {word.strip() for row in rows for word in row.split(",")}


def test_the_search_algorithm_is_cited() -> None:
    assert PAPER in README
    assert PAPER in (ROOT / "CITATION.cff").read_text()
    first = README.index("PrioritySearch")
    assert README.index(PAPER) - first < 1000


@pytest.mark.parametrize("command", ["run", "sweep", "bench"])
def test_nothing_is_called_the_original_before_it_is_said_of_what(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"]).output
    for text in (said, README, (ROOT / "docs" / "search.md").read_text()):
        assert "the original" not in " ".join(text.split())


@pytest.mark.parametrize(
    "word", ["staleness", "boot", "lease", "cold start", "brief", "proposal", "evaluation", "fast_p"]
)
def test_a_word_of_the_progress_line_and_of_the_page_is_explained(word: str) -> None:
    assert word in explained()


def printed_words(node: ast.AST) -> Iterator[str]:
    """The words in an expression's texts, without styles, formats of numbers and what is compared with."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Compare() | ast.keyword(arg="style"):
            return
        case ast.FormattedValue(value=inner):
            yield from printed_words(inner)
        case ast.Constant(value=str(text)):
            yield from re.findall(r"[A-Za-z][A-Za-z -]*[A-Za-z]", text)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from printed_words(child)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        *[("terminal", name) for name in ("progress_line", "_count", "_evaluator", "_backend", "_spent")],
        *[("terminal", name) for name in ("_best_text", "_times")],
        ("progress", "activity"),
        *[("outcome_words", name) for name in ("uncounted", "outcome_text")],
    ],
)
def test_what_the_progress_line_says_is_in_its_table(module: str, function: str) -> None:
    tree = ast.parse((ROOT / "kbopt" / "reporting" / f"{module}.py").read_text())
    (body,) = (n.body for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    words = {word for statement in body for word in printed_words(statement)} - {"warm", "dim"}
    section = README.partition("### Words of the progress line")[2].partition("\n## ")[0]
    table = " ".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE))
    assert words
    assert [word for word in sorted(words) if word not in table] == []


def test_the_readme_shows_the_page_and_gives_a_gpus_figures_before_a_cpus() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert pictures
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    gpus = [number for number, heading in enumerate(headings) if "H200" in heading]
    (cpu,) = (number for number, heading in enumerate(headings) if "two-core CPU" in heading)
    assert len(gpus) > 0
    assert max(gpus) < cpu


def test_the_readme_says_what_is_downloaded_and_how_long_it_takes() -> None:
    install = README[README.index("## The first run") : README.index("### Words")]
    assert "three to ten minutes" in install
    assert re.findall(r"\| (?:about )?(\d(?:\.\d)?) GB \| (?:about )?(\d(?:\.\d)?) GB \|", install)
    assert "TORCH=own" in install


@pytest.mark.parametrize("folder", ["runs", "sweeps", "audits", "wandb", "site", "dist", ".venv"])
def test_what_commands_leave_in_a_checkout_is_no_change_of_it(folder: str) -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {folder, f"/{folder}/"} & set(ignored)
