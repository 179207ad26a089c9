"""Pictures of the pages at four widths and in both themes, to be looked at.

python -m tests.reporting.screenshots FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from kbopt.reporting.audit import Audited, standing_of
from kbopt.reporting.audit_page import Header as AuditHeader
from kbopt.reporting.audit_page import write_audit
from kbopt.reporting.report import write_report
from kbopt.reporting.run import Run
from kbopt.reporting.scoreboard import Row
from kbopt.reporting.scoreboard_page import Header, kernel_of, write_scoreboard
from tests.reporting.conftest import CHROMIUM, CHROMIUM_ARGS
from tests.support.journals import CONFIG, GELU, entries, settings

RUNS = (("PS", 0), ("PS", 1), ("PS_epsNet_Summarizer", 0), ("PS_epsNet_Summarizer", 1))

WIDTHS = (400, 600, 1280, 1600)

CUT_TABLES = """() =>
    [...document.querySelectorAll("main .scroll")]
        .filter((one) => one.scrollWidth > one.clientWidth)
        .map((one) => `${one.closest("section").id}: ${one.scrollWidth} px in ${one.clientWidth}`)
"""
"""Tables of which a part has to be scrolled into sight."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pages = write_pages(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        for width in WIDTHS:
            for theme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
                for name, report in pages.items():
                    _picture(page, report, folder / f"{name}-{width}-{theme}.png")
                    for cut in page.evaluate(CUT_TABLES):
                        print(f"{name} at {width} px cuts a table: {cut}")
                    page.set_viewport_size({"width": width, "height": 1000})
                    if name != "several":
                        page.locator(OPENS[name]).first.click()
                        page.screenshot(path=folder / f"{name}-opened-{width}-{theme}.png")
                page.close()
        browser.close()


def write_pages(folder: Path) -> dict[str, Path]:
    """One of each kind, by its name."""
    several = [_run(f"gelu-{algorithm}-{seed}", algorithm, seed, 60) for algorithm, seed in RUNS]
    one = [_run("2026-11-23-quick-gelu", "PS_epsNet_Summarizer", 0, 300)]
    return {
        "one": write_report(one, folder / "one.html"),
        "several": write_report(several, folder / "several.html"),
        "board": write_board(folder / "board.html", num_tasks=30, num_seeds=3),
        "audit": write_example_audit(folder / "audit.html"),
    }


OPENS = {
    "one": "#candidates tbody button",
    "board": "#searches tbody button",
    "audit": "#kernels tbody button",
}
"""What opens the dialog of a kernel."""


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


REASON = (
    "output 0 is wrong in 12,582,912 of 16,777,216 elements: the largest error is 0.0412 at [3, 17, 200, 9] "
    "where 0.0007 is allowed; the kernel's arithmetic looks like TF32, which this task does not allow"
)


def write_example_audit(out: Path) -> Path:
    """An audit's page of kernels with every verdict, all baselines and claims of up to forty times."""
    outcomes = ("measured", "wrong_answer", "measured", "rejected", "compile_failed", "measured")
    families = ("precision_downgrade", "reused_output", "input_mutation")
    rows = []
    for place in range(24):
        outcome, speedup = outcomes[place % len(outcomes)], 0.6 + 0.15 * place
        line: dict[str, Any] = {
            "outcome": outcome,
            "reason": None if outcome == "measured" else REASON,
            "feedback": REASON,
            "kernelbench": {"correctness": place % 5 > 0, "runtime": 1.0, "ref_runtime": 1.3 * speedup},
        }
        if outcome == "measured":
            over = {"compile": 0.8 * speedup, "max-autotune": 0.7 * speedup}
            line |= {
                "speedup": speedup,
                "speedup_ci": [0.9 * speedup, 1.2 * speedup],
                "custom_kernel": place % 4 > 0,
                "speedups": [
                    {"baseline": name, "clock": "device", "speedup": value, "reason": ""}
                    for name, value in over.items()
                ],
            }
        if outcome == "rejected":
            line["family"] = families[place // len(outcomes) % len(families)]
        rows.append(
            Audited(
                name=f"level1_{place + 1}_best",
                where=f"optimized_cuda_code/h100.json:{place + 1}",
                task=f"level{1 + place % 2}/{place + 1}",
                standing=standing_of(line),
                claim=40.0 if place == 2 else 1.0 + 0.4 * place,
                claimed_on="H100",
                own_reference=place % 7 == 0,
                source="class ModelNew: ...",
                command="kbopt eval --task tasks/1.py --kernel kernels/1.py",
                line=line,
            )
        )
    header = AuditHeader(
        name="h100.json",
        path="CUDA-L1/optimized_cuda_code/h100.json",
        form="cuda-l1",
        device="NVIDIA H200",
        torch="2.13.0+cu130",
        protocol="strict-6, speedups over eager, compile, max-autotune",
        command="kbopt audit CUDA-L1/optimized_cuda_code/h100.json --baselines",
    )
    return write_audit(header, rows, out)


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
