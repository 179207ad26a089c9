"""How long a report takes, how large it is, how soon its page answers, and what the live page costs.

    python benchmarks/report.py [--candidates 1000 100000] [--out FILE]

Every report is read from a real journal on disk, in a process of its own, so that its peak memory is its
own too. The page is interactive once a candidate was clicked and shows its diff, and a filter has taken
outcomes out of the table, which a script does as soon as the browser lets it; charts block it for a while, so
a reader who comes later than that script waits at most until they are drawn. The live page is served from the
writer's own process, as `kbopt run --live` does it, and timed against the same writer without it, in turns.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kbopt.core.events import Entry, Event, Proposed  # noqa: E402
from kbopt.reporting.live import LivePage, LiveRun  # noqa: E402
from kbopt.reporting.report import write_report  # noqa: E402
from kbopt.reporting.run import Run  # noqa: E402
from kbopt.store.journal import JournalReader, SqliteJournal  # noqa: E402
from tests.reporting.conftest import CHROMIUM, CHROMIUM_ARGS  # noqa: E402
from tests.support.journals import CONFIG, GELU, entries, settings  # noqa: E402

WINDOW_S = 3.0
PAIRS = 7
WORK_S = 0.005
EVALUATIONS = "#overview .card:nth-child(2) .value"


SECONDS = "name => performance.getEntriesByName(name)[0].startTime / 1000"
USE_THE_PAGE = """
const wait = setInterval(() => {
    const candidate = document.querySelector("#candidates tbody button");
    if (!candidate) return;
    clearInterval(wait);
    candidate.click();
    requestAnimationFrame(() => setTimeout(() => {  // the window of the candidate is on the screen
        const tabs = [...document.querySelectorAll("#candidate [role=tab]")];
        tabs.find((tab) => tab.innerText.startsWith("Diff")).click();
        if (!document.querySelector("#candidate pre.diff .add")) throw new Error("no diff");
        document.getElementById("candidate").close();
        document.querySelector("#candidates input[name=measured]").click();
        if (document.querySelector("#candidates tr.best")) throw new Error("not filtered");
        requestAnimationFrame(() => setTimeout(() => performance.mark("used")));
    }));
}, 10);
"""
"""Does what a reader does first, as soon as the browser lets it: a candidate, its diff, a filter."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--out", type=Path, help="write the figures as Markdown")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure_report(*arguments.measure)))
        return
    lines = [*machine(), ""]
    with tempfile.TemporaryDirectory() as folder:
        for candidates in arguments.candidates:
            lines += report_lines(Path(folder), candidates)
        lines += live_lines(Path(folder))
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.write_text(f"# What a report costs\n\n{text}\n", encoding="utf-8")


def machine() -> list[str]:
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}.",
        "",
        "    python benchmarks/report.py --out benchmarks/results/DATE-report.md",
    ]


def report_lines(folder: Path, candidates: int) -> list[str]:
    journal, page = folder / f"{candidates}.db", folder / f"{candidates}.html"
    write_journal(journal, candidates)
    command = [sys.executable, __file__, "--measure", str(journal), str(page)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    data_s, interactive_s, charts_s = page_seconds(page)
    return [
        f"## {candidates:,} candidates",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| journal | {journal.stat().st_size / 1e6:.1f} MB |",
        f"| read it and write the report | {measured['wall_s']:.1f} s, CPU {measured['cpu_s']:.1f} s |",
        f"| peak memory | {measured['peak_mb']:.0f} MB |",
        f"| page | {page.stat().st_size / 1e6:.2f} MB |",
        f"| Chromium from disk: tables, sources and diffs are there | {data_s:.2f} s |",
        f"| a candidate was clicked, its diff read, the table filtered | {interactive_s:.2f} s |",
        f"| charts drawn | {charts_s:.2f} s |",
        "",
    ]


def write_journal(path: Path, candidates: int) -> None:
    journal = SqliteJournal.create(path, json.dumps(CONFIG))
    journal._connection.execute("pragma synchronous = off")  # the file is thrown away
    times = []
    for entry in entries(candidates):
        journal.append(entry.event)
        times.append((entry.time, entry.number))
    with journal._connection:
        journal._connection.executemany("update events set time = ? where number = ?", times)
    journal.close()


def measure_report(journal: Path, page: Path) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    with JournalReader(journal) as reader:
        write_report([bench_run(reader.entries())], page)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_bytes() / 1e6,
    }


def peak_bytes() -> int:
    """Of this process since its start; `getrusage` would count the memory of the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def bench_run(of: object) -> Run:
    return Run(name="a-run", task=GELU, settings=settings(), config=CONFIG, entries=of)  # type: ignore[arg-type]


def page_seconds(page: Path, times: int = 5) -> tuple[float, float, float]:
    """Medians of the seconds from the start of the navigation: data there, page used, charts drawn."""
    from playwright.sync_api import sync_playwright

    marks = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.add_init_script(USE_THE_PAGE)
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready=charts]", timeout=60_000)
            tab.wait_for_function("performance.getEntriesByName('used').length > 0")
            marks.append([tab.evaluate(SECONDS, name) for name in ("data", "used", "charts")])
            tab.close()
        browser.close()
    data_s, used_s, charts_s = map(statistics.median, zip(*marks, strict=True))
    return data_s, used_s, charts_s


def live_lines(folder: Path) -> list[str]:
    """Entries a second that a busy process writes while it serves a page, over those without, in pairs."""
    everything = [entry.event for entry in entries(4_000)]
    path = folder / "live.db"
    journal = SqliteJournal.create(path, json.dumps(CONFIG))
    journal._connection.execute("pragma synchronous = off")
    for event in everything[:3_000]:
        journal.append(event)
    more = itertools.cycle(everything[3_000:-1])

    def source(after: int) -> tuple[Entry, ...]:
        with JournalReader(path) as reader:
            return tuple(reader.entries(after))

    ratios, shares = [], []
    for _ in range(PAIRS):
        alone, alone_cpu = write_for(WINDOW_S, journal, more)
        with LivePage(bench_run(()), source) as page:
            follower = threading.Thread(target=follow, args=(page.url,), daemon=True)
            follower.start()
            time.sleep(2.0)  # the first reading
            followed, followed_cpu = write_for(WINDOW_S, journal, more)
        ratios.append(followed / alone)
        shares.append(followed_cpu - alone_cpu)
    with LivePage(bench_run(()), source) as page:
        shown_s = shown_seconds(page.url, journal, more)
    written = journal.last
    update = LiveRun(bench_run(()), source)
    cpu = time.process_time()
    update.update(0)
    first_s = time.process_time() - cpu
    cpu = time.process_time()
    update.update(written - 3)
    update_s = time.process_time() - cpu
    journal.close()
    lost = sorted(1 - ratio for ratio in ratios)
    return [
        f"## The live page, from 1,000 to {sum(isinstance(e, Proposed) for e in everything):,} candidates",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| entries a second lost to the page, median of {PAIRS} pairs | {statistics.median(lost):.1%} |",
        f"| the pairs | {', '.join(f'{one:.1%}' for one in lost)} |",
        f"| CPU of server and reader, of one core, median | {statistics.median(shares):.1%} |",
        f"| from writing entries to seeing them in Chromium, median | {statistics.median(shown_s):.2f} s |",
        f"| the longest of {len(shown_s)} | {max(shown_s):.2f} s |",
        f"| CPU of the first reading, of {written:,} entries | {first_s * 1000:.0f} ms |",
        f"| CPU of one update | {update_s * 1000:.0f} ms |",
    ]


def shown_seconds(url: str, journal: SqliteJournal, more: Iterator[Event], times: int = 8) -> list[float]:
    """How long it takes until a live page that is open in Chromium shows what was just written."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(url)
        tab.wait_for_selector("html[data-ready=charts]", timeout=60_000)
        tab.wait_for_selector("#live-state.live-on")
        for i in range(times):
            tab.wait_for_timeout(1_000 + 170 * i)  # at another moment of the page's own rhythm each time
            before = tab.locator(EVALUATIONS).inner_text()
            began = time.perf_counter()
            for event in itertools.islice(more, 12):
                journal.append(event)
            tab.wait_for_function(
                "([where, before]) => document.querySelector(where).innerText !== before",
                arg=[EVALUATIONS, before],
            )
            seconds.append(time.perf_counter() - began)
        browser.close()
    return seconds


def write_for(seconds: float, journal: SqliteJournal, more: Iterator[Event]) -> tuple[float, float]:
    """Entries a second, and CPU seconds a second, of a loop that computes and appends without a pause."""
    written, cpu, began = 0, time.process_time(), time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            hashlib.sha256(b"kernel" * 1000).digest()
        journal.append(next(more))
        written += 1
    return written / spent, (time.process_time() - cpu) / spent


def follow(url: str) -> None:
    import httpx

    try:
        with httpx.stream("GET", f"{url}events?after=0", timeout=30) as answer:
            for _ in answer.iter_lines():
                pass
    except httpx.HTTPError:
        return  # the server was stopped


if __name__ == "__main__":
    main()
