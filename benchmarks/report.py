"""How long a report takes, how large it is, how soon its page answers, and what the live page costs.

    python benchmarks/report.py [--candidates 1000 100000] [--out FILE]

Every report is read from a real journal on disk, in a process of its own, so that its peak memory is its
own too. The live page is timed against the same writer without it, in turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kbopt.core.events import Entry  # noqa: E402
from kbopt.reporting.live import LivePage, LiveRun  # noqa: E402
from kbopt.reporting.report import write_report  # noqa: E402
from kbopt.reporting.run import Run  # noqa: E402
from kbopt.store.journal import JournalReader, SqliteJournal  # noqa: E402
from tests.reporting.conftest import CHROMIUM, CHROMIUM_ARGS  # noqa: E402
from tests.support.journals import CONFIG, GELU, entries, settings  # noqa: E402

LIVE_ENTRIES = 600
LIVE_PAUSE_S = 0.02


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
    data_s, charts_s = page_seconds(page)
    return [
        f"## {candidates:,} candidates",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| journal | {journal.stat().st_size / 1e6:.1f} MB |",
        f"| read it and write the report | {measured['wall_s']:.1f} s, CPU {measured['cpu_s']:.1f} s |",
        f"| peak memory | {measured['peak_mb']:.0f} MB |",
        f"| page | {page.stat().st_size / 1e6:.2f} MB |",
        f"| Chromium from disk: tables, sources and diffs answer | {data_s:.2f} s |",
        f"| Chromium from disk: charts drawn | {charts_s:.2f} s |",
        "",
    ]


def write_journal(path: Path, candidates: int) -> None:
    journal = SqliteJournal.create(path, json.dumps(CONFIG))
    journal._connection.execute("pragma synchronous = off")  # the file is thrown away
    for entry in entries(candidates):
        journal.append(entry.event)
    journal.close()


def measure_report(journal: Path, page: Path) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    with JournalReader(journal) as reader:
        write_report([bench_run(reader.entries())], page)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def bench_run(of: object) -> Run:
    return Run(name="a-run", task=GELU, settings=settings(), config=CONFIG, entries=of)  # type: ignore[arg-type]


def page_seconds(page: Path, times: int = 3) -> tuple[float, float]:
    """Medians of the seconds from the start of the navigation to the data and to the charts."""
    from playwright.sync_api import sync_playwright

    marks = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready=charts]", timeout=60_000)
            entries_of = "name => performance.getEntriesByName(name)[0].startTime / 1000"
            marks.append((tab.evaluate(entries_of, "data"), tab.evaluate(entries_of, "charts")))
            tab.close()
        browser.close()
    return statistics.median(m[0] for m in marks), statistics.median(m[1] for m in marks)


def live_lines(folder: Path) -> list[str]:
    """The CPU time that following a growing journal takes, as a share of the time in which it grew."""
    everything = tuple(entries(1_400))
    path = folder / "live.db"
    journal = SqliteJournal.create(path, json.dumps(CONFIG))
    journal._connection.execute("pragma synchronous = off")
    for entry in everything[:-LIVE_ENTRIES]:
        journal.append(entry.event)
    alone_s = grow(journal, everything[-LIVE_ENTRIES : -LIVE_ENTRIES // 2])
    with JournalReader(path) as reader:

        def source(after: int) -> tuple[Entry, ...]:
            return tuple(reader.entries(after))

        with LivePage(bench_run(()), source) as page:
            follower = threading.Thread(target=follow, args=(page.url,), daemon=True)
            follower.start()
            time.sleep(3.0)
            cpu = time.process_time()
            followed_s = grow(journal, everything[-LIVE_ENTRIES // 2 :])
            cpu_s = time.process_time() - cpu
        cpu = time.process_time()
        update = LiveRun(bench_run(()), source)
        update.update(0)
        first_s = time.process_time() - cpu
        cpu = time.process_time()
        update.update(len(everything) - 3)
        update_s = time.process_time() - cpu
    journal.close()
    return [
        "## The live page, at about 1,000 candidates",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| writing 300 entries, {LIVE_PAUSE_S * 1000:.0f} ms apart, alone | {alone_s:.2f} s |",
        f"| the same while a page follows | {followed_s:.2f} s, {followed_s / alone_s - 1:+.1%} |",
        f"| CPU of writer, server and reader together meanwhile | {cpu_s / followed_s:.1%} of one core |",
        f"| CPU of the first reading | {first_s * 1000:.0f} ms |",
        f"| CPU of one update | {update_s * 1000:.0f} ms |",
    ]


def grow(journal: SqliteJournal, more: tuple[Entry, ...]) -> float:
    began = time.perf_counter()
    for entry in more:
        journal.append(entry.event)
        time.sleep(LIVE_PAUSE_S)
    return time.perf_counter() - began


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
