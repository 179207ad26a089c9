"""The live page: over real HTTP on the loopback interface, and in headless Chromium."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from kbopt.core.errors import UserError
from kbopt.core.events import Entry
from kbopt.reporting.connections import MAX_IDLE
from kbopt.reporting.live import LivePage
from kbopt.reporting.summary import summarize
from tests.reporting.conftest import MakeRun, Watched


class GrowingJournal:
    """A journal of which `written` entries are on disk so far."""

    def __init__(self, entries: tuple[Entry, ...], written: int) -> None:
        self.entries = entries
        self.written = written
        self.gone = False

    def __call__(self, after: int) -> tuple[Entry, ...]:
        if self.gone:
            raise UserError("no journal")
        return self.entries[after : self.written]


@pytest.fixture
def run(make_run: MakeRun):
    return make_run(60)


@pytest.fixture
def journal(run) -> GrowingJournal:
    return GrowingJournal(run.entries, written=60)


@pytest.fixture
def live(run, journal) -> Iterator[LivePage]:
    with LivePage(run, journal) as page:
        yield page


def first_message(url: str, headers: dict[str, str] | None = None) -> tuple[str, dict]:
    """The kind and the data of the first event."""
    kind = ""
    with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            if line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without an event")


def test_strangers_that_say_nothing_are_closed_beyond_a_number(live: LivePage):
    at, beyond = httpx.URL(live.url), 20
    with ExitStack() as stack:
        strangers = [
            stack.enter_context(socket.create_connection((at.host, at.port), timeout=20))
            for _ in range(MAX_IDLE + beyond)
        ]
        assert [stranger.recv(1) for stranger in strangers[:beyond]] == [b""] * beyond
        assert httpx.get(live.url, timeout=20).status_code == 200


def test_it_listens_on_the_loopback_interface_with_a_token(live: LivePage):
    host, token = live.url.removeprefix("http://").rstrip("/").split("/")
    assert host.startswith("127.0.0.1:")
    assert len(token) >= 20
    assert httpx.get(live.url).status_code == 200


@pytest.mark.parametrize("path", ["", "wrong/", "wrong/events", "wrong/candidate/c0001"])
def test_without_the_token_there_is_nothing(live: LivePage, path: str):
    origin = live.url.rsplit("/", 2)[0]
    assert httpx.get(f"{origin}/{path}").status_code == 404


def test_another_host_name_is_refused(live: LivePage):
    assert httpx.get(live.url, headers={"Host": "attacker.example"}).status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_is_read_only(live: LivePage, method: str):
    assert httpx.request(method, live.url).status_code == 405


def test_an_update_holds_only_what_changed(live: LivePage, run, journal: GrowingJournal):
    journal.written = len(run.entries)
    kind, update = first_message(f"{live.url}events?after={len(run.entries) - 3}")
    assert kind == "update"
    assert update["entries"] == len(run.entries)
    assert update["summary"]["evaluations"] == summarize(run).evaluations
    assert 1 <= len(update["rows"]) <= 3


def test_a_page_that_comes_back_goes_on_where_it_was(live: LivePage, run, journal: GrowingJournal):
    journal.written = len(run.entries)
    headers = {"Last-Event-ID": str(len(run.entries) - 1)}
    _, update = first_message(f"{live.url}events?after=0", headers)
    assert update["rows"] == []


def test_a_journal_that_went_away_ends_the_stream(live: LivePage, journal: GrowingJournal):
    journal.gone = True
    assert first_message(f"{live.url}events?after=60")[0] == "gone"


def test_it_stops_while_a_page_follows(run, journal: GrowingJournal, caplog: pytest.LogCaptureFixture):
    with (
        LivePage(run, journal) as page,
        httpx.stream("GET", f"{page.url}events?after=0", timeout=20) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("id: ")
        page.stop()
        assert list(lines)  # the stream ends of itself
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url)
    assert caplog.records == []


def test_a_bad_position_is_refused(live: LivePage):
    assert httpx.get(f"{live.url}events?after=x").status_code == 400


def test_the_texts_of_one_candidate_are_served(live: LivePage):
    detail = httpx.get(f"{live.url}candidate/c0001").json()
    assert "class ModelNew" in "".join(text for _, text in detail["source"])
    assert httpx.get(f"{live.url}candidate/none").status_code == 404


def test_a_taken_port_is_a_user_error(live: LivePage, run, journal: GrowingJournal):
    port = int(live.url.split(":")[2].split("/")[0])
    with pytest.raises(UserError, match="Choose another --port"):
        LivePage(run, journal, port=port)


@pytest.mark.browser
def test_the_page_shows_a_new_result_by_itself(
    live: LivePage, run, journal: GrowingJournal, watched: Watched
):
    page = watched.open(live.url)
    page.wait_for_selector("#live-state.live-on")
    evaluations = page.locator("#overview .card .value").nth(1)
    before = int(evaluations.inner_text())
    total = summarize(run).evaluations
    assert before < total
    focused = page.locator("#candidates tbody tr button").nth(2)
    name = focused.inner_text()
    focused.focus()
    journal.written = len(run.entries)
    page.wait_for_function(
        "total => document.querySelectorAll('#overview .card .value')[1].innerText === total",
        arg=str(total),
        timeout=10_000,  # two seconds is what the benchmark holds it to; a busy machine may take longer
    )
    assert page.evaluate("document.activeElement.innerText") == name  # the reader keeps her place
    page.keyboard.press("Enter")
    page.wait_for_selector("#candidate[open] pre.code")
    assert page.locator("#candidate-title").inner_text() == f"Candidate {name}"
    assert watched.errors == []
