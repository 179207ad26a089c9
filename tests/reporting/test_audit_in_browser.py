"""The page of an audit in headless Chromium, opened from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbopt.reporting.audit_page import write_audit
from tests.reporting.conftest import Watched
from tests.reporting.test_audit import CORRECT, HEADER, ROWS, line, row
from tests.support.journals import HOSTILE

pytestmark = pytest.mark.browser


def test_each_kernel_opens_with_its_source_feedback_and_command(watched: Watched, tmp_path: Path) -> None:
    told = line("wrong_answer", reason="expected 1", feedback="the reason in full", kernelbench=CORRECT)
    rows = [row(told, 2.0, name="wrong one", source="y = 2", command="kbopt eval --task t"), *ROWS]
    page = watched.open(write_audit(HEADER, rows, tmp_path / "audit.html").as_uri())
    assert page.locator("#kernels tbody tr:not(.under)").count() == len(rows)
    page.get_by_role("button", name="rejected (1)").click()
    assert page.locator("#kernels tbody tr:not(.under)").count() == 1
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="wrong one").click()
    dialog = page.locator("dialog")
    assert "y = 2" in dialog.inner_text()
    dialog.get_by_role("tab", name="Feedback").click()
    assert "the reason in full" in dialog.inner_text()
    dialog.get_by_role("tab", name="Reproduce").click()
    assert "kbopt eval --task t" in dialog.inner_text()
    dialog.get_by_role("button", name="next →").click()
    assert "2.00× [1.90 to 2.10]" in dialog.inner_text()
    assert watched.errors == []
    assert watched.requests == [page.url]


def test_nothing_that_others_wrote_runs(watched: Watched, tmp_path: Path) -> None:
    hostile = row(line("wrong_answer", reason=HOSTILE, feedback=HOSTILE), 2.0, name=HOSTILE, source=HOSTILE)
    page = watched.open(write_audit(HEADER, [hostile], tmp_path / "audit.html").as_uri())
    page.locator("#kernels button.link").click()
    assert page.evaluate("() => window.pwned") is None
    assert watched.errors == []


def test_a_set_without_claims_and_rejections_has_lines_in_their_place(
    watched: Watched, tmp_path: Path
) -> None:
    page = watched.open(write_audit(HEADER, [row(line("timed_out"))], tmp_path / "audit.html").as_uri())
    assert "The set states no speedups." in page.locator("#claims").inner_text()
    assert "No kernel was rejected." in page.locator("#families").inner_text()
    page.get_by_role("button", name="switch to the dark theme").click()
    assert watched.errors == []
