"""What is printed: on a terminal, without one, and when what is printed is hostile."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from kbopt.core.costs import Rent
from kbopt.core.outcomes import Speedup
from kbopt.core.ports import Phase
from kbopt.core.scoring import Standing
from kbopt.core.text import first_line
from kbopt.reporting.final_table import print_outcome
from kbopt.reporting.progress import ProgressSnapshot, activity, done_fraction, eta_s
from kbopt.reporting.summary import RunSummary, summarize
from kbopt.reporting.terminal import ProgressView, progress_line, progress_panel
from kbopt.reporting.text import duration, figure, plural, printable, speedup_text, standing_text, truncated
from tests.reporting.conftest import MakeRun

BEST = Standing(
    candidate="c1",
    speedup=1.834,
    speedup_ci=(1.79, 1.88),
    measurements=1,
    kernel_ms=0.2246,
    reference_ms=0.412,
    custom_kernel=True,
    state="faster",
)
SNAPSHOT = ProgressSnapshot(
    run="a-run",
    task="quick/gelu",
    algorithm="PS",
    elapsed_s=72.0,
    proposals=24,
    evaluations=20,
    max_evaluations=50,
    best=BEST,
    by_outcome={"measured": 12, "crashed": 3, "wrong_answer": 5},
    busy_fraction=0.63,
    backend_state="warm",
    backend_detail="container 3 min old",
    in_flight=4,
    evaluating=2,
    queue_length=2,
)


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=30)


def text_of(where: Console) -> str:
    return where.file.getvalue()


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ({}, ""),
        ({"waiting": 2}, "waiting for the device"),
        ({"building": 2, "waiting": 3, "timing": 1}, "timing, building 2"),
        (
            {"comparing": 1, "admitting": 1, "checking": 1, "profiling": 2},
            "checking, admitting, comparing, profiling 2",
        ),
        ({"\x1b[31mforged": 9, "building": 0}, ""),
    ],
)
def test_the_line_and_the_panel_say_what_the_evaluator_does(phases: dict[Phase, int], said: str):
    snapshot = replace(SNAPSHOT, phases=phases)
    assert activity(phases) == said
    parts = progress_line(snapshot).split(" | ")
    assert parts[2 : 2 + bool(said)] == [", ".join(said.split(", ")[:2])] * bool(said)
    assert len(progress_line(snapshot)) <= 80
    where = console(terminal=True, width=160)
    where.print(progress_panel(snapshot))
    in_detail = said + (", 3 waiting for the device" if phases.get("waiting") == 3 else "")
    assert (f"evaluating 2 ({in_detail})" if said else "evaluating 2, 2 in the queue") in text_of(where)


def test_without_a_terminal_news_is_a_plain_line_each():
    where = console(terminal=False)
    better = replace(BEST, speedup=1.9, speedup_ci=(1.8, 2.0))
    with ProgressView(where) as view:
        view.update(SNAPSHOT)
        view.update(replace(SNAPSHOT, elapsed_s=73.0, evaluations=21))
        view.update(replace(SNAPSHOT, elapsed_s=74.0, evaluations=22, best=better))
        view.update(replace(SNAPSHOT, elapsed_s=90.0, evaluations=25, best=better))
    backend, *lines = text_of(where).splitlines()
    assert backend == "backend warm (container 3 min old)"
    assert len(lines) == 3
    assert lines[0] == "1:12  20/50 evaluated | best 1.83x [1.79, 1.88] | ~1:48 left | 0.225 of 0.412 ms"
    assert "\x1b" not in text_of(where)


def test_a_line_says_in_80_columns_what_matters_most():
    full = replace(
        SNAPSHOT, max_proposals=25, max_evaluations=None, cached=7, dropped=1, failed=1, usd=0.0012
    )
    line = progress_line(full)
    assert line == "1:12  22/25 results | best 1.83x [1.79, 1.88] | finishing 4 | 0.225 of 0.412 ms"
    short = replace(full, best=None, by_outcome={"crashed": 2}, elapsed_s=3700.0, max_proposals=None)
    assert progress_line(short) == ("1:01:40  20 evaluated | nothing correct yet | $0.0012 | 7 seen before")
    longest = replace(
        full, best=replace(BEST, speedup=1234.5, speedup_ci=(1000.0, 2000.0), state="no custom kernel")
    )
    assert len(progress_line(longest)) <= 80
    assert "1,234x [1,000, 2,000], no custom kernel" in progress_line(longest)


def test_results_count_and_not_proposals_so_the_end_is_not_there_before_it_is():
    asked = replace(SNAPSHOT, proposals=25, max_proposals=25, max_evaluations=None, in_flight=5)
    assert done_fraction(asked) == pytest.approx(20 / 25)
    assert asked.finishing == 5
    assert eta_s(asked) == pytest.approx(18.0)
    assert "finishing 5" in progress_line(asked)
    assert replace(asked, max_proposals=60).finishing == 0
    assert replace(SNAPSHOT, evaluations=46).finishing == 4
    assert replace(asked, max_proposals=60, max_usd=1.0, usd=1.0).finishing == 5


def test_time_left_falls_while_nothing_comes_and_is_not_told_once_it_took_longer():
    where = console(terminal=False)
    with ProgressView(where) as view:
        for elapsed_s in (72.0, 92.0, 112.0, 200.0):
            view.update(replace(SNAPSHOT, elapsed_s=elapsed_s))
    left = [line.split(" | ")[2] for line in text_of(where).splitlines()[1:]]
    assert left[:3] == ["~1:48 left", "~1:28 left", "~1:08 left"]
    assert left[3] == "no result for 128 s"


def test_a_warm_device_is_named_once_and_another_boot_is_news():
    warm = replace(SNAPSHOT, backend_boot="b1", backend_age_s=184.0, backend_detail="")
    where = console(terminal=False, width=300)
    with ProgressView(where) as view:
        view.update(warm)
        view.update(replace(warm, elapsed_s=73.0, backend_age_s=185.0))
        view.update(replace(warm, elapsed_s=95.0, backend_age_s=207.0))
        view.update(replace(warm, backend_boot="b2", backend_age_s=1.0, backend_detail="replaced b1"))
        view.update(replace(warm, backend_state="waiting", backend_detail="no L4 container for 5 s"))
        view.update(replace(warm, backend_state="waiting", backend_detail="no L4 container for 6 s"))
    said = [line for line in text_of(where).splitlines() if line.startswith("backend")]
    assert said == [
        "backend warm (boot b1, up 3 min 04 s)",
        "backend warm (boot b2, up 1.0 s; replaced b1)",
        "backend waiting (no L4 container for 5 s)",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_the_view_fits_one_screen(width: int):
    where = console(terminal=True, width=width)
    with ProgressView(where) as view:
        view.update(SNAPSHOT)
    shown = text_of(where)
    for words in ("quick/gelu", "20/50 evaluated", "1.83x", "12 measured", "evaluating 2", "warm"):
        assert words in shown


def test_the_budget_that_runs_out_first_says_how_long_it_takes():
    assert done_fraction(SNAPSHOT) == pytest.approx(0.4)
    assert eta_s(SNAPSHOT) == pytest.approx(108.0)
    nearly_out_of_money = replace(SNAPSHOT, usd=0.9, max_usd=1.0)
    assert eta_s(nearly_out_of_money) == pytest.approx(8.0)
    assert eta_s(replace(SNAPSHOT, by_outcome={})) is None
    assert eta_s(replace(SNAPSHOT, max_evaluations=None)) is None
    assert eta_s(replace(SNAPSHOT, evaluations=0)) is None


@pytest.fixture(scope="module")
def summary(make_run: MakeRun) -> RunSummary:
    return summarize(make_run(60))


def told(summary: RunSummary, **files: str) -> str:
    where = console(terminal=False)
    summary = replace(summary, stage_seconds={"queue": 0.04, "compile": 75.0, "check": 4.2, "time": 12.0})
    print_outcome(where, summary, files, "runs/my run")
    return text_of(where)


def test_the_outcome_names_the_figures_the_end_the_files_and_what_comes_next(summary: RunSummary):
    shown = told(summary, kernel="runs/a/best.py", journal="runs/a/journal.db")
    best = summary.best
    own = f"{best.speedup:.2f}x over eager PyTorch [{best.speedup_ci[0]:.2f}, {best.speedup_ci[1]:.2f}]"
    beside = best.strongest
    over_compile = f"{beside.speedup:.2f}x over torch.compile [{beside.interval[0]:.2f}, "
    assert f"{own}, {over_compile}" in " ".join(shown.split())
    assert f"{best.kernel_ms:.3g} ms instead of 0.412 ms" in " ".join(shown.split())
    assert "by its own protocol correct, 0.2 ms instead of 0.412 ms" in " ".join(shown.split())
    assert "the budget of evaluations is spent" in shown
    assert f"60: {summary.evaluations} evaluations, {summary.repeats} repeats among them" in shown
    assert f"{summary.cached} seen before, {summary.num_dropped} dropped as near-copies" in shown
    assert "evaluator 1 min 15 s building, 4.2 s checking, 12 s timing" in " ".join(shown.split())
    assert "runs/a/best.py" in shown
    assert shown.splitlines()[-1] == (
        "next: kbopt report 'runs/my run' --open | kbopt show 'runs/my run' | kbopt export 'runs/my run'"
    )


@pytest.mark.parametrize("state", ["not faster", "no custom kernel"])
def test_a_kernel_of_which_nothing_may_be_claimed_is_marked(summary: RunSummary, state: str):
    where = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    print_outcome(where, replace(summary, best=replace(summary.best, state=state)), {}, "runs/a")
    line = next(line for line in text_of(where).splitlines() if "eager PyTorch" in line)
    assert state in line
    assert "\x1b[1;32m" not in line  # bold green is for a kernel that is faster


def test_the_outcome_says_what_this_machine_calls_equal_code(summary: RunSummary):
    assert "equal code" not in told(summary)
    found = Speedup(baseline="equal code", clock="device", speedup=1.02, interval=(0.95, 1.09))
    shown = told(replace(summary, best=replace(summary.best, equal_code=found)))
    said = "equal code 1.02x [0.95, 1.09]: the task's own model, judged as a candidate"
    assert said in " ".join(shown.split())


def test_the_outcome_says_the_worst_workload_and_what_the_full_evaluation_found(summary: RunSummary):
    assert "workloads" not in told(summary)
    best = replace(
        summary.best, by_workload="the worst is odd", final_fault="wrong_answer: on workload last: 1 of 9"
    )
    shown = " ".join(told(replace(summary, best=best)).split())
    assert "workloads the worst is odd" in shown
    assert "when it was evaluated in full, it was wrong_answer: on workload last: 1 of 9" in shown


def test_the_outcome_says_what_containers_cost_and_no_cost_is_rounded_to_nothing(summary: RunSummary):
    rent = Rent(gpu="L40S", seconds=200.0, usd=0.0031)
    shown = told(replace(summary, usd=0.0042, tokens=9, containers=(rent,)))
    assert "$0.0042, 9 tokens" in shown
    assert "L40S for 3 min 20 s, $0.0031 of that" in shown


def test_an_outcome_without_a_correct_kernel_says_why(make_run: MakeRun):
    failed = summarize(make_run(30, correct=False))
    shown = told(failed)
    assert "no correct kernel" in shown
    assert f"{failed.errors[0].count} x {failed.errors[0].text[:20]}" in shown
    assert "kbopt export" not in shown


def test_what_others_wrote_is_escaped_cut_and_named():
    assert printable("a\x1b[31mb\tc\nd\u202e") == "a\\x1b[31mb\tc\nd\\u202e"
    assert first_line("\n\n  boom  \nmore") == "boom"
    assert first_line("x" * 200, limit=10) == "x" * 9 + "…"
    assert truncated("abcdefgh", 4) == "abc\n… 4 characters left out …\nh"
    assert (duration(4.2), duration(59.6), duration(3599), duration(7260)) == (
        "4.2 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 01 min",
    )
    assert (figure(0.01234), figure(1.834), figure(1234.5)) == ("0.0123", "1.83", "1,234")
    assert speedup_text(None) == "–"
    assert standing_text(BEST) == "1.83x [1.79, 1.88]"
    assert standing_text(replace(BEST, state="not faster")) == "1.83x [1.79, 1.88], not faster"
    assert standing_text(None) == "–"
    assert (plural(1, "evaluation"), plural(1200, "evaluation")) == ("1 evaluation", "1,200 evaluations")
