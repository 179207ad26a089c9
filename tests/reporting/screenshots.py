"""Pictures of the page at both widths and in both themes, to be looked at.

python -m tests.reporting.screenshots FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from kbopt.reporting.report import write_report
from kbopt.reporting.run import Run
from kbopt.reporting.scoreboard import Row
from kbopt.reporting.scoreboard_page import Header, kernel_of, write_scoreboard
from tests.reporting.conftest import CHROMIUM, CHROMIUM_ARGS
from tests.support.journals import CONFIG, GELU, entries, settings

RUNS = (("PS", 0), ("PS", 1), ("PS_epsNet_Summarizer", 0), ("PS_epsNet_Summarizer", 1))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    one = write_report([_run("2026-11-23-quick-gelu", "PS_epsNet_Summarizer", 0, 300)], folder / "one.html")
    several = [_run(f"gelu-{algorithm}-{seed}", algorithm, seed, 60) for algorithm, seed in RUNS]
    many = write_report(several, folder / "several.html")
    board = write_board(folder / "board.html", num_tasks=30, num_seeds=3)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        for width in (400, 1600):
            for theme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
                _picture(page, one, folder / f"one-{width}-{theme}.png")
                page.set_viewport_size({"width": width, "height": 1000})
                page.locator("#candidates tbody tr button").first.click()
                page.get_by_role("tab", name="Diff to parent").last.click()
                page.screenshot(path=folder / f"candidate-{width}-{theme}.png")
                _picture(page, many, folder / f"several-{width}-{theme}.png")
                _picture(page, board, folder / f"board-{width}-{theme}.png")
                page.set_viewport_size({"width": width, "height": 1000})
                page.locator("#searches tbody tr button").first.click()
                page.screenshot(path=folder / f"search-{width}-{theme}.png")
                page.close()
        browser.close()


def write_board(out: Path, num_tasks: int, num_seeds: int) -> Path:
    """A benchmark's page: a third of the tasks has no correct kernel, and one of them no seed kernel."""
    kernel = kernel_of(_run("quick-gelu", "PS", 0, 20))
    rows = []
    for place in range(num_tasks):
        for seed in range(num_seeds):
            task, eager = f"level{1 + place % 2}/{place + 1}", 0.7 + 0.1 * place + 0.05 * seed
            if place % 3 == 2:
                fate = "no seed" if place == 2 else "unsolved"
                rows.append(Row(task=task, seed=seed, fate=fate, over={}, minutes=2.0, reason="wrong answer"))
                continue
            rows.append(
                Row(
                    task=task,
                    seed=seed,
                    fate="correct",
                    over={"eager": eager, "compile": 0.8 * eager, "max-autotune": 0.7 * eager},
                    interval=(0.95 * eager, 1.05 * eager),
                    own_kernel=place % 5 > 0,
                    kernelbench=1.1 * eager,
                    roofline=0.2 + 0.02 * place,
                    evaluations=30,
                    usd=0.1234,
                    tokens=54_321,
                    minutes=7.5,
                    device_minutes=3.25,
                    page=f"tasks/{place}.html",
                )
            )
    about = {"device": "NVIDIA H200", "optimizer": "kbopt", "budget": "30 evaluations a search"}
    header = Header(title="kernelbench: kbopt", about=about, notes=("no --model: kbopt's own seed kernels",))
    return write_scoreboard(header, [(row, kernel) for row in rows], out)


def _run(name: str, algorithm: str, seed: int, candidates: int) -> Run:
    return Run(
        name=name,
        task=GELU,
        settings=settings(algorithm, seed),
        config=CONFIG,
        reproduce=f"kbopt eval --run runs/{name}",
        entries=entries(candidates, seed=2 * seed + len(algorithm)),
    )


def _picture(page: Page, report: Path, out: Path) -> None:
    """The whole page, high enough that every chart has come into view and is drawn."""
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("html[data-ready=charts]", timeout=60_000)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    page.wait_for_function(
        "() => [...document.querySelectorAll('.chart')].every((one) => one.querySelector('.plotly'))"
    )
    page.screenshot(path=out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
