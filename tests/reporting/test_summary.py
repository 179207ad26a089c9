"""The figures of a run, tunables among them, and several runs side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.core import codec
from kbopt.core.events import FINAL_REPEAT, FULL_REPEAT, Entry, Evaluated, Event, Proposed, RemeasureAsked
from kbopt.core.outcomes import Audit, Crashed, Measured, Speedup
from kbopt.core.protocol import Clock
from kbopt.core.settings import Budget
from kbopt.core.task import Task
from kbopt.finish import Finished, run_document
from kbopt.reporting.comparison import compare
from kbopt.reporting.evidence import evidence
from kbopt.reporting.exported import exported
from kbopt.reporting.history import fold
from kbopt.reporting.report import report_data
from kbopt.reporting.run import Run
from kbopt.reporting.summary import RunSummary, summarize
from kbopt.reporting.tunables import tunable_values
from kbopt.simulated.backend import DEVICE
from tests.reporting.conftest import MakeRun


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("BLOCK_M = 64  # tune: 16, 32, 64, 128", (("BLOCK_M", "64"),)),
        ("  mode = 'fast'  # tune: 'fast', 'exact'", (("mode", "'fast'"),)),
        ("#define TILE 16 // tune: 8, 16", (("TILE", "16"),)),
        ("constexpr int WARPS = 4; // tune: 2, 4", (("WARPS", "4"),)),
        ("static const float x = 0.5f; /* tune: 0.5f, 1.0f */", (("x", "0.5f"),)),
        ("A = 1  # tune: 1, 2\nA = 2  # tune: 1, 2", (("A", "1"),)),
        ('FLAGS = ["-O3", "-march=native"]  # tune: ["-O3"]', (("FLAGS", '["-O3", "-march=native"]'),)),
        ("BLOCK: int = 64  # tune: 32, 64", (("BLOCK", "64"),)),
        ("f(num_warps=8)  # tune: 4, 8", (("num_warps", "8"),)),
        ("# tune: nothing stands before it", ()),
        ("x = 1  # tuned by hand", ()),
    ],
)
def test_a_tunable_is_a_name_and_a_value_before_the_comment(source: str, found: tuple):
    assert tunable_values(source) == found


def test_the_best_values_of_the_landscape_are_found_and_worth_more_than_one(make_run: MakeRun):
    summary = summarize(make_run(600))
    best = {
        tunable.name: max(tunable.values, key=lambda value: value.best_speedup or 0.0).value
        for tunable in summary.tunables
    }
    assert best == {"BLOCK": "128", "VECTOR": "4", "NUM_WARPS": "4", "FAST_TANH": "True"}
    assert all(tunable.worth > 1.05 for tunable in summary.tunables)


def test_outcomes_add_up_to_the_candidates_with_a_result(make_run: MakeRun):
    summary = summarize(make_run(200))
    outcomes = sum(summary.by_outcome.values())
    assert outcomes == summary.candidates - summary.num_dropped
    assert outcomes == summary.evaluations + summary.cached - summary.repeats
    assert summary.proposals == 200
    assert summary.candidates + summary.proposals_failed == 200
    assert summary.cold_starts == 1
    assert summary.ended == "the budget of evaluations is spent"


def test_a_run_without_a_correct_kernel_has_no_best(make_run: MakeRun):
    summary = summarize(make_run(40, correct=False))
    assert summary.best is None
    assert summary.progress == ()
    assert summary.correct == 0
    assert summary.errors


def test_tunables_are_told_by_seed_and_a_source_counts_once(make_run: MakeRun):
    run = make_run(30)
    events = [entry.event for entry in run.entries]
    measured = next(e for e in events if isinstance(e, Evaluated) and isinstance(e.result.outcome, Measured))
    proposed = next(e for e in events if isinstance(e, Proposed)).candidate
    told: list[Event] = []
    # Fast by another seed's -O2; of the first seed -O3 is twice as fast, and its -O2 comes three times.
    for seed, flag, speedup in (("a", "-O3", 2.0), *[("a", "-O2", 1.0)] * 3, ("b", "-O2", 8.0)):
        name = f"c{len(told)}"
        source = f'# seed: x/{seed}\nFLAG = "{flag}"  # tune: "-O2", "-O3"\n'
        outcome = replace(measured.result.outcome, speedup=speedup)
        told.append(Proposed(candidate=replace(proposed, id=name, source=source, parent=None)))
        told.append(Evaluated(candidate=name, result=replace(measured.result, outcome=outcome)))
    entries = [Entry(number=n, time=float(n), event=event) for n, event in enumerate(told, 1)]
    other, first = summarize(replace(run, entries=entries)).tunables
    assert (first.seed, first.worth) == ("x/a", pytest.approx(2.0))
    assert [(one.value, one.sources, one.median_speedup) for one in first.values] == [
        ('"-O2"', 1, 1.0),
        ('"-O3"', 1, 2.0),
    ]
    assert (other.seed, other.worth, other.values[0].best_speedup) == ("x/b", None, 8.0)


def test_a_run_that_did_nothing_yet_has_a_summary(make_run: MakeRun):
    summary = summarize(make_run(0))
    assert (summary.evaluations, summary.best, summary.staleness) == (0, None, None)


def test_the_summary_is_json_and_back(make_run: MakeRun):
    summary = summarize(make_run(80))
    assert codec.loads(RunSummary, codec.dumps(summary)) == summary


def test_no_run_of_a_seed_replaces_another_and_both_tables_agree(make_run: MakeRun):
    runs = [make_run(40, algorithm="PS", seed=seed) for seed in range(3)]
    summaries = [summarize(replace(run, settings=runs[0].settings)) for run in runs]
    comparison = compare(summaries)
    (row,), (cell,) = comparison.algorithms, comparison.cells
    best = [summary.best.speedup for summary in summaries]
    assert len(set(best)) > 1
    assert cell.speedup.mean == pytest.approx(sum(best) / 3)
    assert (row.geomean.mean, row.geomean.low, row.geomean.high) == pytest.approx(
        (cell.speedup.mean, cell.speedup.low, cell.speedup.high)
    )
    assert (row.num_runs, row.num_tasks, row.faster) == (3, 1, 3)
    assert row.algorithm == "PS"
    assert comparison.warnings == ()


def test_runs_are_grouped_by_whatever_differs_and_warned_of(make_run: MakeRun):
    first = replace(make_run(30, algorithm="PS"), setup={"proposer": "tunables"})
    budget = Budget(evaluations=6)
    others = [
        replace(first, setup={"proposer": "llm", "models": "openai/gpt-5"}),
        replace(first, setup={"proposer": "llm", "models": "anthropic/claude"}),
        replace(first, settings=replace(first.settings, budget=budget)),
    ]
    comparison = compare([summarize(run) for run in (first, *others)])
    assert comparison.groups == (
        "PS · tunables · 25 proposals, 50 evaluations",
        "PS · llm · openai/gpt-5 · 25 proposals, 50 evaluations",
        "PS · llm · anthropic/claude · 25 proposals, 50 evaluations",
        "PS · tunables · 25 proposals, 6 evaluations",
    )
    assert [row.algorithm for row in comparison.algorithms] == list(comparison.groups)
    (warning,) = comparison.warnings
    assert warning.startswith(
        "The budgets differ (25 proposals, 50 evaluations; 25 proposals, 6 evaluations)"
    )


def test_runs_of_other_devices_and_protocols_are_warned_of(make_run: MakeRun):
    summary = summarize(make_run(30))
    other = replace(summary, setup={**summary.setup, "device": "NVIDIA H100", "protocol": "fp16"})
    known = replace(summary, setup={**summary.setup, "protocol": "fp32"})
    unborn = replace(summary, setup={**summary.setup, "device": "", "protocol": "fp32"})
    comparison = compare([known, other, unborn])
    assert [text.partition(" (")[0] for text in comparison.warnings] == [
        "Measured on different devices",
        "Judged by different protocols",
    ]
    assert compare([known, unborn]).warnings == ()


def test_algorithms_are_compared_by_task_with_the_spread_over_seeds(make_run: MakeRun):
    other = Task(name="quick/other", source="class Model: ...")
    runs = [
        make_run(50, algorithm="PS", seed=0),
        make_run(50, algorithm="PS", seed=1),
        make_run(50, algorithm="PS", seed=0, task=other, correct=False),
        make_run(50, algorithm="PS", seed=1, task=other),
    ]
    summaries = [summarize(run) for run in runs]
    comparison = compare(summaries)
    (row,) = comparison.algorithms
    assert (row.num_runs, row.solved) == (4, 3)
    assert (row.fast_1.low, row.fast_1.mean, row.fast_1.high, row.fast_1.num_seeds) == (0.5, 0.75, 1.0, 2)
    assert row.fast_05 == row.fast_1
    first, second, _, other = (summary.best.speedup if summary.best else 0.0 for summary in summaries)
    by_seed = [first, (second * other) ** 0.5]
    assert row.geomean.mean == pytest.approx(sum(by_seed) / 2)
    assert (row.geomean.low, row.geomean.high) == pytest.approx((min(by_seed), max(by_seed)))
    cell = next(cell for cell in comparison.cells if cell.task == "quick/other")
    assert (cell.solved, cell.speedup.low) == (1, 0.0)
    assert cell.speedup.high == pytest.approx(summaries[3].best.speedup)
    (curve,) = comparison.curves
    assert curve.num_tasks == 2
    means = [point.mean for point in curve.points]
    assert means == sorted(means, reverse=True)


def finished(run: Run, full: Measured | Crashed, protocol: str = "strict-4/fp32/5x100/torch-warn") -> Run:
    """`run`, whose best kernel was measured again at the end and then evaluated in full as `full`."""
    best = fold(run.entries).best
    name, result = best.candidate.id, replace(best.results[-1], protocol=protocol, kernelbench=None)
    seen = replace(result.outcome, speedup=2.0, speedup_ci=(1.9, 2.1), speedups=())
    verdict = replace(best.results[-1].kernelbench, runtime=0.5, ref_runtime=0.9)
    events = (
        RemeasureAsked(candidate=name, repeat=FINAL_REPEAT),
        Evaluated(candidate=name, result=replace(result, outcome=seen), repeat=FINAL_REPEAT),
        RemeasureAsked(candidate=name, repeat=FULL_REPEAT),
        Evaluated(
            candidate=name,
            result=replace(result, outcome=full, kernelbench=verdict),
            repeat=FULL_REPEAT,
        ),
    )
    last = run.entries[-1]
    more = [
        Entry(number=last.number + n, time=last.time + n, event=event) for n, event in enumerate(events, 1)
    ]
    return replace(run, entries=(*run.entries, *more))


def over(baseline: str, speedup: float, clock: Clock = "device", reason: str = "") -> Speedup:
    interval = (speedup * 0.9, speedup * 1.1)
    return Speedup(baseline=baseline, clock=clock, speedup=speedup, interval=interval, reason=reason)


FULL = Measured(
    kernel_ms=(1.0,),
    reference_ms=(9.0,),
    speedup=9.0,
    speedup_ci=(8.0, 10.0),
    native_ms=1.0,
    wall_ms=1.0,
    audit=Audit(custom_kernel=True),
    speedups=(
        over("eager", 9.0),
        over("eager", 8.0, "latency"),
        over("compile", 1.4),
        over("compile", 0.9, "latency"),
        over("max-autotune", 1.6),
        over("cuda-graph", 0.0, reason="CUDA graphs are for GPUs"),
    ),
    equal_code=over("equal code", 1.01),
)


def test_the_winners_full_evaluation_gives_the_strongest_baseline_and_leaves_its_speedup(make_run: MakeRun):
    run = finished(make_run(60), FULL)
    best = summarize(run).best
    assert (best.speedup, best.speedup_ci, best.measurements) == (2.0, (1.9, 2.1), 1)
    assert best.ranked_over == "eager PyTorch"
    assert best.strongest == over("compile", 1.4)
    assert best.speedups == FULL.speedups
    assert best.kernelbench.runtime == 0.5
    told = {belief.name: belief for belief in evidence(fold(run.entries).best.trial)}
    assert told["interval"].text.startswith("The 95 % interval, 1.90 to 2.10")
    assert told["full evaluation"].text.startswith(
        "Evaluated once more, beside every baseline, it was 9.00x [8"
    )
    assert told["over cuda-graph"].text.endswith(": CUDA graphs are for GPUs.")
    assert "0.5 ms instead of 0.9 ms" in told["KernelBench"].text
    page = report_data([run])["runs"][0]
    assert page["summary"]["best"]["strongest"]["baseline"] == "compile"
    assert page["details"][best.candidate]["evidence"] == codec.encode(tuple(told.values()))
    document = run_document(
        Finished(summary=summarize(run), source=Path("best.py"), journal=Path("j"), report=Path("r"))
    )
    assert document["best"]["strongest"]["interval"] == [1.4 * 0.9, 1.4 * 1.1]
    assert document["best"]["kernelbench"]["correctness"] is True
    assert document["best"]["equal_code"]["speedup"] == 1.01
    assert document["best"]["speedups"][-1]["reason"] == "CUDA graphs are for GPUs"


@pytest.mark.parametrize(
    ("protocol", "ranked_over", "strongest"),
    [
        ("strict-4/fp32/latency/5x100/torch-warn", "eager PyTorch", over("compile", 0.9, "latency")),
        ("strict-4/fp32/over-compile/5x100/torch-warn", "torch.compile", over("max-autotune", 1.6)),
        ("strict-4/fp32/over-best/5x100/torch-warn", "the fastest baseline", over("compile", 1.4)),
    ],
)
def test_the_strongest_baseline_is_by_the_clock_that_ranks_and_beside_what_ranks(
    make_run: MakeRun, protocol: str, ranked_over: str, strongest: Speedup
):
    best = summarize(finished(make_run(60), FULL, protocol)).best
    assert (best.ranked_over, best.strongest) == (ranked_over, strongest)


def test_a_winner_that_fails_its_full_evaluation_is_said_to(make_run: MakeRun):
    run = finished(make_run(60), Crashed(reason="it ran out of luck", how="SIGSEGV"))
    best = summarize(run).best
    assert (best.speedup, best.strongest) == (2.0, None)
    told = {belief.name: belief for belief in evidence(fold(run.entries).best.trial)}
    assert told["full evaluation"].good is False
    assert told["full evaluation"].text.endswith("it was crashed: it ran out of luck.")


def test_a_simulated_speedup_is_over_no_pytorch(make_run: MakeRun):
    run = make_run(30)
    simulated = [
        replace(entry, event=replace(entry.event, result=replace(entry.event.result, device=DEVICE)))
        if isinstance(entry.event, Evaluated)
        else entry
        for entry in run.entries
    ]
    assert summarize(run).best.ranked_over == "eager PyTorch"
    best = fold(simulated).best
    assert summarize(replace(run, entries=simulated)).best.ranked_over == "the simulated reference"
    assert "over the simulated reference" in exported(run, best.trial, folder="r", inputs="", backward=False)
