"""The tables of every page have room: nothing of them has to be scrolled into sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.conftest import Watched
from tests.reporting.screenshots import CUT_TABLES, write_pages

pytestmark = pytest.mark.browser

RIGHT_EDGES = """() =>
    [...document.querySelectorAll("#overview .card")].map((one) => one.getBoundingClientRect().right)
"""
LOWER_EDGES = """() =>
    [".filled pre", ".filled + div"].map((one) => document.querySelector(one).getBoundingClientRect().bottom)
"""
TALLEST_ROW = (
    """() => Math.max(...[...document.querySelectorAll("tbody tr")].map((one) => one.clientHeight))"""
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, 1280) for name in ("one", "several", "board", "audit")),
        *((name, width) for name in ("one", "board", "audit") for width in (600, 900)),
        *((name, 1210) for name in ("board", "audit")),
    ],
)
def test_no_table_is_wider_than_its_page(
    pages: dict[str, Path], watched: Watched, name: str, width: int
) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = watched.open(pages[name].as_uri())
    assert page.evaluate(CUT_TABLES) == []
    assert page.evaluate(TALLEST_ROW) < 100  # lines of text in a column as narrow as a word make 243 px
    assert watched.errors == []


@pytest.mark.parametrize(("name", "table"), [("board", "#searches"), ("audit", "#kernels")])
def test_both_verdicts_and_the_reason_are_in_sight_on_a_narrow_page(
    pages: dict[str, Path], watched: Watched, name: str, table: str
) -> None:
    watched.page.set_viewport_size({"width": 600, "height": 900})
    page = watched.open(pages[name].as_uri())
    heads = page.locator(f"{table} thead th:visible").all_inner_texts()
    assert {"strict verdict", "over eager", "KernelBench"} <= set(heads)
    assert page.locator(f"{table} tr.under:visible").count() > 0


def test_the_scoreboard_has_the_two_verdicts_side_by_side(pages: dict[str, Path], watched: Watched) -> None:
    page = watched.open(pages["board"].as_uri())
    heads = page.locator("#results thead").last.locator("th").all_inner_texts()
    assert heads[1:3] == ["over eager", "eager, by KernelBench"]


@pytest.mark.parametrize("name", ["one", "board", "audit"])
def test_no_card_stands_alone_in_a_second_row(pages: dict[str, Path], watched: Watched, name: str) -> None:
    page = watched.open(pages[name].as_uri())
    edges = page.evaluate(RIGHT_EDGES)
    assert edges[-1] == pytest.approx(max(edges), abs=1)  # the last row is full


def test_the_largest_claim_has_a_tick_on_either_side(pages: dict[str, Path], watched: Watched) -> None:
    page = watched.open(pages["audit"].as_uri())
    page.locator("#claims").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#claims-chart .plotly")
    ticks = page.locator("#claims-chart .xtick text").all_text_contents()
    assert ticks[-2:] == ["30×", "50×"]


def test_the_source_of_the_best_kernel_is_as_tall_as_the_list_beside_it(
    pages: dict[str, Path], watched: Watched
) -> None:
    page = watched.open(pages["one"].as_uri())
    ends = page.evaluate(LOWER_EDGES)
    assert ends[0] == pytest.approx(ends[1], abs=2)
