"""The documentation builds strictly, without a network, into pages that need none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kbopt.cli import COMMANDS

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//|<link[^>]*\bhref="(?:https?:)?//'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Proxies that refuse every connection stand for a machine without a network."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "ALL_PROXY": nowhere},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert pages <= built
    assert {Path("reference/commands.html"), Path("decisions/index.html")} <= built


@pytest.mark.slow
def test_pages_fetch_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_the_commands_page_has_every_command(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text()
    headings = set(re.findall(r'<h2 id="([^"]+)"', text))
    assert {f"kbopt-{name}" for name in COMMANDS} <= headings
    assert {"kbopt-sweep-resume", "kbopt-modal-stop"} <= headings


@pytest.mark.slow
def test_the_navigation_has_every_decision(site: Path) -> None:
    start = (site / "index.html").read_text()
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f'href="decisions/{path.stem}.html"' in start, path.name
