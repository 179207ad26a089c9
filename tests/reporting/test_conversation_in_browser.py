"""The conversation with a language model, from a real `kbopt run` to the page and the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbopt.core.events import Proposed
from kbopt.simulated.kernels import to_source
from kbopt.store.journal import JournalReader
from tests.cli.test_run import kbopt
from tests.reporting.conftest import Watched
from tests.support.openai_server import Answer, OpenAIServer, Script

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHATTER = "Larger tiles might help."
THOUGHT = "Deeper levels keep the data near."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose first request was answered without a kernel, and asked again."""
    folder = tmp_path_factory.mktemp("llm") / "run"
    kernels = [f"{THOUGHT}\n\n```python\n{to_source([n, 3, 5, 7, 2, 4, 6, 8])}```\n" for n in range(1, 5)]
    script = Script(behaviours=(Answer(text=CHATTER), *(Answer(text=text) for text in kernels)))
    with OpenAIServer(script) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "any")
        done = kbopt(
            *("run", "--task", "sim/smooth", "--backend", "simulated", "--proposer", "llm"),
            *("--model", "openai/scripted", "--api-base", server.url),
            *("--explorers", 1, "--num-candidates", 1, "--num-steps", 3, "--out", folder),
        )
    assert done.returncode == 0, done.stderr
    return folder


def first_candidate(folder: Path) -> str:
    with JournalReader(folder / "journal.sqlite") as journal:
        return next(e.event.candidate.id for e in journal.entries() if isinstance(e.event, Proposed))


def test_the_page_shows_what_the_model_was_asked_and_what_it_answered(folder: Path, watched: Watched):
    page = watched.open((folder / "report.html").as_uri())
    name = first_candidate(folder)
    page.locator("#candidates table").get_by_role("button", name=name, exact=True).first.click()
    page.locator("#candidate").get_by_role("tab", name="Prompt and answer").click()
    shown = page.locator("#candidate [role=tabpanel]").inner_text()
    assert shown.startswith("## System")
    assert shown.index(CHATTER) < shown.index(THOUGHT)
    assert "openai/scripted" in shown
    assert "No language model wrote this candidate" not in shown
    assert watched.errors == []


def test_the_terminal_shows_the_same_conversation(folder: Path):
    name = first_candidate(folder)
    done = kbopt("show", folder, name, "--transcript")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index(CHATTER) < done.stdout.index(THOUGHT)
    best = kbopt("show", folder, "--transcript")
    assert THOUGHT in best.stdout
    unknown = kbopt("show", folder, "c999999", "--transcript")
    assert unknown.returncode == 2
    assert "keeps no conversation about c999999" in unknown.stderr
