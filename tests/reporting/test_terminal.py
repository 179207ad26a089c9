"""What is printed: on a terminal, without one, and when what is printed is hostile."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from kbopt.core.types import Rent
from kbopt.reporting.terminal import (
    ProgressSnapshot,
    ProgressView,
    done_fraction,
    eta_s,
    print_outcome,
)
from kbopt.reporting.text import duration, figure, first_line, printable, speedup_text, truncated

SNAPSHOT = ProgressSnapshot(
    run="a-run",
    task="quick/gelu",
    algorithm="PS",
    elapsed_s=72.0,
    proposals=24,
    evaluations=20,
    max_evaluations=50,
    best_speedup=1.834,
    best_ci=(1.79, 1.88),
    by_outcome={"measured": 12, "crashed": 3, "wrong_answer": 5},
    busy_fraction=0.63,
    backend_state="warm",
    backend_detail="container 3 min old",
    queue_length=2,
)


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=30)


def text_of(where: Console) -> str:
    return where.file.getvalue()


def test_without_a_terminal_news_is_a_plain_line_each():
    where = console(terminal=False)
    with ProgressView(where) as view:
        view.update(SNAPSHOT)
        view.update(replace(SNAPSHOT, elapsed_s=73.0, evaluations=21))
        view.update(replace(SNAPSHOT, elapsed_s=74.0, evaluations=22, best_speedup=1.9, best_ci=(1.8, 2.0)))
        view.update(replace(SNAPSHOT, elapsed_s=90.0, evaluations=25, best_speedup=1.9, best_ci=(1.8, 2.0)))
    lines = text_of(where).splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "[1 min 12 s] 20/50 evaluations, best 1.83x [1.79, 1.88], 12 measured, 5 wrong_answer, 3 crashed, "
        "evaluator busy 63%, backend warm (container 3 min old), queue 2, about 1 min 48 s left"
    )
    assert "\x1b" not in text_of(where)


def test_a_warm_device_is_named_with_its_age_and_another_boot_is_news():
    warm = replace(SNAPSHOT, backend_boot="b1", backend_age_s=184.0, backend_detail="")
    where = console(terminal=False, width=300)
    with ProgressView(where) as view:
        view.update(warm)
        view.update(replace(warm, elapsed_s=73.0, backend_age_s=185.0))
        view.update(replace(warm, backend_boot="b2", backend_age_s=1.0, backend_detail="replaced b1"))
        view.update(replace(warm, backend_state="waiting", backend_detail="no L4 container for 5 s"))
        view.update(replace(warm, backend_state="waiting", backend_detail="no L4 container for 6 s"))
    first, second, waiting = text_of(where).splitlines()
    assert "backend warm (boot b1, up 3 min 04 s)," in first
    assert "backend warm (boot b2, up 1.0 s; replaced b1)," in second
    assert "backend waiting (no L4 container for 5 s)," in waiting


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_the_view_fits_one_screen(width: int):
    where = console(terminal=True, width=width)
    with ProgressView(where) as view:
        view.update(SNAPSHOT)
    shown = text_of(where)
    for words in ("quick/gelu", "20/50 evaluations", "1.83x", "12 measured", "busy 63%", "warm"):
        assert words in shown


def test_the_budget_that_runs_out_first_says_how_long_it_takes():
    assert done_fraction(SNAPSHOT) == pytest.approx(0.4)
    assert eta_s(SNAPSHOT) == pytest.approx(108.0)
    nearly_out_of_money = replace(SNAPSHOT, usd=0.9, max_usd=1.0)
    assert eta_s(nearly_out_of_money) == pytest.approx(8.0)
    assert eta_s(replace(SNAPSHOT, max_evaluations=None)) is None
    assert eta_s(replace(SNAPSHOT, evaluations=0)) is None


def test_the_outcome_names_the_files_and_the_figures():
    where = console(terminal=False)
    print_outcome(
        where, SNAPSHOT, reason="the budget is spent", kernel="runs/a/best.py", journal="runs/a/journal.db"
    )
    shown = text_of(where)
    assert "1.83x the speed of eager PyTorch" in shown
    assert "95 % CI 1.79 to 1.88" in shown
    assert "runs/a/best.py" in shown
    assert "report" not in shown


def test_the_outcome_says_what_containers_cost():
    where = console(terminal=False)
    rent = Rent(gpu="L40S", seconds=200.0, usd=0.144)
    print_outcome(where, replace(SNAPSHOT, usd=0.25), reason="done", containers=[rent])
    assert "$0.25, 0 tokens" in text_of(where)
    assert "L40S for 3 min 20 s, $0.14 of that" in text_of(where)


def test_an_outcome_without_a_correct_kernel_says_why():
    where = console(terminal=False)
    failed = replace(SNAPSHOT, best_speedup=None, best_ci=None, by_outcome={"crashed": 20})
    print_outcome(where, failed, reason="the budget is spent", errors=[("illegal memory access", 20)])
    assert "no correct kernel" in text_of(where)
    assert "20 x illegal memory access" in text_of(where)


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
