"""The report in headless Chromium, opened from disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.core.events import Entry, Evaluated, Raised
from kbopt.core.outcomes import Audit, Measured
from kbopt.core.settings import Budget
from kbopt.evaluation.server.feedback import NO_SANDBOX_NOTE
from kbopt.reporting.report import write_report
from kbopt.reporting.run import Run
from kbopt.reporting.summary import summarize
from tests.reporting.conftest import MakeRun, Watched
from tests.support.journals import HOSTILE

pytestmark = pytest.mark.browser

FASTEST_POINT = """() => {
    const tree = document.getElementById("tree");
    const { xaxis, yaxis } = tree._fullLayout;
    const box = tree.getBoundingClientRect();
    const trace = tree.data.find((one) => one.customdata && one.yaxis === "y");
    const i = trace.y.indexOf(Math.max(...trace.y));
    return {
        x: box.x + xaxis._offset + xaxis.d2p(trace.x[i]),
        y: box.y + yaxis._offset + yaxis.d2p(trace.y[i]),
        id: trace.customdata[i],
    };
}"""

SHOWN_MINUTES = """() => {
    const [from, to] = document.getElementById("timeline-chart")._fullLayout.xaxis.range;
    return to - from;
}"""

UNREACHABLE = """() =>
    [...document.querySelectorAll("button, input, select, a[href]")]
        .filter((one) => one.tabIndex < 0 && one.getAttribute("role") !== "tab").length
"""

LOWEST_CONTRAST = """() => {
    const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (one, other) => {
        const [light, dark] = [luminance(one), luminance(other)].sort((x, y) => y - x);
        return (light + 0.05) / (dark + 0.05);
    };
    const style = (selector) => getComputedStyle(document.querySelector(selector));
    const card = style("section:not(.bare)").backgroundColor;
    const texts = ["h2", "section:not(.bare) .dim", "td", "button.link", "button"];
    return Math.min(...texts.map((selector) => ratio(style(selector).color, card)));
}"""


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Run:
    return make_run(120)


@pytest.fixture(scope="module")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report([run], tmp_path_factory.mktemp("report") / "report.html").as_uri()


def test_it_opens_from_disk_without_network_and_without_an_error(report: str, watched: Watched):
    watched.page.context.set_offline(True)
    page = watched.open(report)
    for section in page.locator("main section").all():
        section.evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#staleness-chart .plotly")
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_figures_are_those_of_the_journal(report: str, run: Run, watched: Watched):
    page = watched.open(report)
    summary = summarize(run)
    cards = page.locator("#overview .card .value").all_inner_texts()
    assert cards[0] == f"{summary.best.speedup:.2f}×"
    beside = summary.best.strongest
    figures = page.locator("#overview .card .more").first.inner_text()
    assert f" · {beside.speedup:.2f}× over torch.compile [{beside.interval[0]:.2f} to " in figures
    assert cards[1:3] == [str(summary.evaluations), str(summary.proposals)]
    assert cards[6] == f"${summary.usd:.2f}"
    cells = page.locator("#cost table").last.locator("tbody td").all_inner_texts()
    assert cells == ["H100", "40 min 00 s", "$3.25"]
    page.locator("#outcomes").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#outcomes-chart .plotly")
    drawn = page.evaluate("document.getElementById('outcomes-chart').data[0].x")
    assert list(reversed(drawn)) == list(summary.by_outcome.values())
    page.locator("#progress").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#progress-chart .plotly")
    progress = page.evaluate("document.getElementById('progress-chart').data.at(-1)")
    assert progress["y"][:-1] == [point.speedup for point in summary.progress]
    assert progress["x"][:-1] == [point.evaluations for point in summary.progress]


def test_raised_limits_are_told_with_their_time_on_the_runs_page_and_in_a_comparison(
    run: Run, make_run: MakeRun, watched: Watched, tmp_path: Path
):
    last = run.entries[-1]
    entry = Entry(number=last.number + 1, time=last.time + 3600.0, event=Raised(evaluations=80))
    raised = replace(run, entries=(*run.entries, entry), name="raised")
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(entry.time))
    page = watched.open(write_report([raised], tmp_path / "one.html").as_uri())
    said = page.locator("#overview .notice").inner_text()
    assert said.startswith(f"Its limits were raised: 50 evaluations to 80 evaluations, on {moment}, after ")
    page = watched.open(write_report([run, raised], tmp_path / "two.html").as_uri())
    states = page.locator("#runs tbody tr td:last-child").all_inner_texts()
    assert states[0] == "the budget of evaluations is spent"
    assert states[1].startswith(f"not ended; raised: 50 evaluations to 80 evaluations, on {moment}, after ")
    assert watched.errors == []


def test_a_click_on_a_candidate_shows_its_source_and_its_diff(report: str, run: Run, watched: Watched):
    page = watched.open(report)
    best = summarize(run).best
    page.locator("#candidates table").get_by_role("button", name=best.candidate, exact=True).first.click()
    dialog = page.locator("#candidate")
    source = next(
        e.event.candidate.source
        for e in run.entries
        if getattr(e.event, "candidate", None) and getattr(e.event.candidate, "id", "") == best.candidate
    )
    assert dialog.locator("pre.code").text_content() == source
    dialog.get_by_role("tab", name="Diff to parent").click()
    assert dialog.locator("pre.diff .add").count() > 0
    assert dialog.locator("pre.diff .del").count() > 0
    dialog.get_by_role("tab", name="Feedback").click()
    assert "correct" in dialog.locator("pre").text_content()


def test_a_click_on_a_point_of_the_tree_opens_that_candidate(report: str, watched: Watched):
    page = watched.open(report)
    page.locator("#tree").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#tree .scatterlayer .point")
    page.wait_for_timeout(300)
    spot = page.evaluate(FASTEST_POINT)
    page.mouse.move(spot["x"], spot["y"], steps=4)
    page.mouse.click(spot["x"], spot["y"])
    page.wait_for_selector("#candidate[open]")
    assert page.locator("#candidate-title").inner_text() == f"Candidate {spot['id']}"


def test_the_filter_by_outcome_hides_the_others(report: str, run: Run, watched: Watched):
    page = watched.open(report)
    for checkbox in page.locator("#candidates input[type=checkbox]:not([name=crashed])").all():
        checkbox.uncheck()
    outcomes = page.locator("#candidates tbody tr td:nth-child(2)").all_inner_texts()
    assert outcomes
    assert all("crashed" in text for text in outcomes)
    page.locator("#candidates input[name=crashed]").uncheck()
    assert page.locator("#candidates tbody tr").count() == 0


def test_the_time_line_zooms_by_its_buttons(report: str, watched: Watched):
    page = watched.open(report)
    page.locator("#timeline").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#timeline-chart .plotly")
    width = f"({SHOWN_MINUTES})()"
    before = page.evaluate(width)
    page.get_by_role("button", name="zoom in", exact=True).click()
    page.wait_for_function(f"() => {width} < {before * 0.51}")
    page.get_by_role("button", name="show all").click()
    page.wait_for_function(f"() => {width} >= {before * 0.99}")


def test_every_control_is_reached_by_the_keyboard(report: str, watched: Watched):
    page = watched.open(report)
    first = page.locator("#candidates tbody tr button").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#candidate[open]")
    title = page.locator("#candidate-title").inner_text()
    page.locator("#candidate").get_by_role("button", name="next").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => document.getElementById('candidate-title').innerText !== {title!r}")
    page.keyboard.press("Escape")
    page.wait_for_selector("#candidate", state="hidden")
    unreachable = page.evaluate(UNREACHABLE)
    assert unreachable == 0


def noted(entry: Entry, note: str) -> Entry:
    """The entry with `note` as the first of a measurement's audit."""
    event = entry.event
    if not isinstance(event, Evaluated) or not isinstance(event.result.outcome, Measured):
        return entry
    outcome = event.result.outcome
    audit = replace(outcome.audit, notes=(note, *outcome.audit.notes))
    result = replace(event.result, outcome=replace(outcome, audit=audit))
    return replace(entry, event=replace(event, result=result))


def test_a_measurement_without_a_sandbox_is_shown_in_red(run: Run, tmp_path, watched: Watched):
    entries = tuple(noted(entry, NO_SANDBOX_NOTE) for entry in run.entries)
    page = watched.open(write_report([replace(run, entries=entries)], tmp_path / "report.html").as_uri())
    line = page.locator("ul.checks li", has_text="No sandbox: ")

    assert line.locator(".no").count() == 1
    assert page.locator("ul.checks li", has_text="1 Triton kernel launched").locator(".dim").count() == 1


def test_what_kernels_and_models_wrote_is_text_and_never_runs(make_run: MakeRun, tmp_path, watched: Watched):
    path = write_report([make_run(60, hostile=HOSTILE, name=HOSTILE)], tmp_path / "report.html")
    page = watched.open(path.as_uri())
    for section in page.locator("main section").all():
        section.evaluate("one => one.scrollIntoView()")
    for button in page.locator("#errors table button").all():
        button.click()
        for tab in page.locator("#candidate [role=tab]").all():
            tab.click()
        page.keyboard.press("Escape")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0
    assert "</script><script>window.pwned" in page.locator("#errors").inner_text()
    note = page.locator("#candidates td:last-child").first.inner_text()
    assert "🚀" in note
    assert "U+202E" in note
    assert watched.errors == []


def test_on_paper_every_chart_is_there_and_nothing_is_cut(report: str, tmp_path, watched: Watched):
    watched.page.emulate_media(color_scheme="dark")
    page = watched.open(report)
    undrawn = "[...document.querySelectorAll('.chart')].filter((one) => !one.querySelector('.plotly')).length"
    page.evaluate("""() => addEventListener("beforeprint", () => {
        const widths = [...document.querySelectorAll(".chart .main-svg")].map((one) => one.clientWidth);
        window.paper = { theme: document.documentElement.dataset.theme, widest: Math.max(...widths) };
    })""")
    assert page.evaluate(undrawn) > 0
    page.pdf(path=tmp_path / "page.pdf")
    assert page.evaluate(undrawn) == 0
    paper = page.evaluate("window.paper")
    assert paper["theme"] == "light"
    assert paper["widest"] <= 700
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    cut = page.evaluate(
        """() => [...document.querySelectorAll(".scroll, pre")]
            .filter((one) => getComputedStyle(one).overflowX !== "visible").length"""
    )
    assert cut == 0


def test_a_short_search_is_drawn_in_seconds_and_an_arrow_is_never_parted(
    make_run: MakeRun, tmp_path, watched: Watched
):
    page = watched.open(write_report([make_run(12, hostile="UNROLL 2 -> 4")], tmp_path / "r.html").as_uri())
    page.locator("#timeline").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#timeline-chart .plotly")
    title = page.evaluate("document.getElementById('timeline-chart')._fullLayout.xaxis.title.text")
    assert title == "seconds"
    shown = page.evaluate(SHOWN_MINUTES)
    assert 10 < shown < 180
    note = page.locator("#candidates td:last-child").first.inner_text()
    assert "UNROLL 2 → 4" in note


def test_a_section_without_anything_to_say_takes_one_line(make_run: MakeRun, tmp_path, watched: Watched):
    page = watched.open(write_report([make_run(3)], tmp_path / "r.html").as_uri())
    for name in ("rejections", "recommendations", "failures"):
        assert page.locator(f"#{name}.none").bounding_box()["height"] < 60


def test_the_policy_stops_a_script_that_gets_into_the_page_all_the_same(report: str, watched: Watched):
    page = watched.open(report)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            const image = document.createElement("div");
            image.innerHTML = "<img src='data:,' onerror='window.pwned = 1'>";
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in error for error in watched.errors)


def test_a_run_without_a_correct_kernel_says_so(make_run: MakeRun, tmp_path, watched: Watched):
    page = watched.open(write_report([make_run(30, correct=False)], tmp_path / "report.html").as_uri())
    assert page.locator("#overview .hero .value").inner_text() == "none correct"
    assert "No kernel was correct" in page.locator("#best").inner_text()
    assert watched.errors == []


@pytest.mark.parametrize("state", ["not faster", "no custom kernel"])
def test_a_headline_of_which_nothing_may_be_claimed_is_not_green(
    make_run: MakeRun, tmp_path, watched: Watched, state: str
):
    run = make_run(60)
    page = watched.open(
        write_report([replace(run, entries=claiming(state, run))], tmp_path / "r.html").as_uri()
    )
    hero = page.locator("#overview .hero .value")
    assert state in hero.inner_text()
    green = page.evaluate("getComputedStyle(document.querySelector('.yes')).color")
    assert hero.evaluate("one => getComputedStyle(one).color") != green
    rows = page.locator("#candidates tbody tr")
    marked = page.locator("#candidates tbody .claim").count()
    assert marked > 0
    before = rows.count()
    page.locator(f"#candidates input[name='{state}']").uncheck()
    assert page.locator("#candidates tbody .claim").count() == 0
    assert rows.count() == before - marked


def test_many_runs_are_drawn_as_median_and_range_and_differences_are_named(
    make_run: MakeRun, tmp_path, watched: Watched
):
    runs = [make_run(20, name=f"ps-{seed}", algorithm="PS", seed=seed) for seed in range(5)]
    other = make_run(30, name="gpt", algorithm="PS")
    runs.append(replace(other, settings=replace(other.settings, budget=Budget(evaluations=6))))
    page = watched.open(write_report(runs, tmp_path / "report.html").as_uri())
    page.locator("#efficiency").evaluate("one => one.scrollIntoView()")
    page.wait_for_selector("#efficiency-chart-0 .plotly")
    drawn = page.evaluate(
        "document.getElementById('efficiency-chart-0').data.map((one) => one.showlegend !== false)"
    )
    assert sorted(drawn) == [False, False, True, True]  # a band's two edges, its median, and the one run
    assert page.locator("#comparison tbody tr").count() == 2
    assert "25 proposals, 6 evaluations" in page.locator("#comparison tbody").inner_text()
    assert "The budgets differ" in page.locator("#overview").inner_text()
    assert watched.errors == []


def claiming(state: str, run: Run) -> Iterator[Entry]:
    """The run's entries with measurements of which no more than `state` may be claimed."""
    for entry in run.entries:
        event = entry.event
        if isinstance(event, Evaluated) and isinstance(event.result.outcome, Measured):
            outcome = event.result.outcome
            changed = (
                replace(outcome, speedup_ci=(0.9, 3.0))
                if state == "not faster"
                else replace(outcome, speedup_ci=(1.1, 3.0), audit=Audit(custom_kernel=False))
            )
            event = replace(event, result=replace(event.result, outcome=changed))
        yield replace(entry, event=event)


def test_several_runs_are_compared_and_each_can_be_opened(make_run: MakeRun, tmp_path, watched: Watched):
    runs = [
        make_run(40, name=f"{algorithm}-{seed}", algorithm=algorithm, seed=seed)
        for algorithm in ("PS", "PS_epsNet")
        for seed in (0, 1)
    ]
    page = watched.open(write_report(runs, tmp_path / "report.html").as_uri())
    page.wait_for_selector("#fastp-chart .plotly")
    assert page.locator("#comparison tbody tr").count() == 2
    assert page.locator("#runs tbody tr").count() == 4
    page.get_by_role("button", name="PS_epsNet-1").click()
    assert page.locator("#overview .hero .value").inner_text() == f"{summarize(runs[3]).best.speedup:.2f}×"
    assert watched.errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows_and_text_is_readable(report: str, watched: Watched, width: int, theme: str):
    watched.page.emulate_media(color_scheme=theme)
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = watched.open(report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate(LOWEST_CONTRAST) >= 4.5
