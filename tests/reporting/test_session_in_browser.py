"""An agent's session, from a real client of `kbopt mcp` to its page."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reporting.conftest import Watched
from tests.support.agents import SIMULATED, call, refusal, simulated, stdio

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def session(out: Path) -> Path:
    """The page of a session that asked for a profile, and submitted the slower of two kernels."""
    async with stdio(out, *SIMULATED) as client:
        for level in (3, 12):
            await call(client, "evaluate", task="sim/smooth", kernel=simulated(level))
        await refusal(client, "profile", candidate="c000001")
        return Path((await call(client, "submit", candidate="c000001"))["report"])


def test_a_sessions_page_says_what_was_submitted_what_was_faster_and_what_a_profile_told(
    tmp_path: Path, watched: Watched
):
    with ThreadPoolExecutor(1) as thread:  # the browser's own event loop runs in this one
        report = thread.submit(asyncio.run, session(tmp_path)).result()
    page = watched.open(report.as_uri())
    overview = page.locator("#overview").inner_text()
    assert "sim/smooth session" in overview
    assert "ended: submitted c000001; c000002 measured faster at the end, " in overview
    page.locator("#candidates table").get_by_role("button", name="c000001", exact=True).first.click()
    facts = page.locator("#candidate table").first.inner_text()
    assert "no profile: this backend has no profiles" in facts
    assert watched.errors == []
