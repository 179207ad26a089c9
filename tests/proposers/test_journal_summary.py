"""The summary that needs no language model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.evaluations import Result, Seconds
from kbopt.core.outcomes import Audit, Crashed, Measured
from kbopt.core.proposals import Candidate, Trial
from kbopt.proposers.journal_summary import Choice, JournalSummarizer, Score, merge, parse, render

SEEDED = "# seed: softmax/cpu_rows\nSUMS = {}  # tune: 8, 16\n"


def measured(speedup):
    times = {"kernel_ms": (1.0,), "reference_ms": (speedup,), "native_ms": 1.0, "wall_ms": 1.0}
    audit = Audit(custom_kernel=True)
    return Measured(speedup=speedup, speedup_ci=(speedup, speedup), audit=audit, **times)


def trial(id, source, *outcomes):
    about = {
        "feedback": "",
        "device": "cpu",
        "protocol": "p",
        "boot": "b",
        "seconds": Seconds(),
        "device_s": 0.0,
    }
    results = tuple(Result(outcome=outcome, **about) for outcome in outcomes)
    candidate = Candidate(id=id, source=source, parent=None, proposer="tunables", memory_version=0)
    return Trial(candidate=candidate, results=results)


TRIALS = [
    trial("a", SEEDED.format(16), measured(4.0)),
    trial("b", SEEDED.format(16), measured(1.0)),
    trial("c", SEEDED.format(8), measured(8.0), measured(2.0)),
    trial("d", SEEDED.format(8), Crashed(reason="", how="SIGSEGV")),
    trial("e", "BLOCK = 64  # tune: 64, 128\n", measured(0.5)),
]


async def test_the_summary_states_geometric_means_and_failures_by_seed_and_by_value():
    text, usage = await JournalSummarizer().summarize(TRIALS, "")

    assert usage == ()
    assert text.splitlines() == [
        "Geometric mean of the speedup over PyTorch, by seed kernel and by tunable value:",
        "- softmax/cpu_rows: 2.51984x over 3 measured, 1 failed",
        "- softmax/cpu_rows SUMS = 8: 4x over 1 measured, 1 failed",
        "- softmax/cpu_rows SUMS = 16: 2x over 2 measured, 0 failed",
        "- other: 0.5x over 1 measured, 0 failed",
        "- other BLOCK = 64: 0.5x over 1 measured, 0 failed",
        "Counted candidates: a b c d e",
    ]


async def test_a_summary_counts_each_candidate_once_however_often_it_is_given():
    first, _ = await JournalSummarizer().summarize(TRIALS[:3], "")
    second, _ = await JournalSummarizer().summarize(TRIALS[1:], first)
    at_once, _ = await JournalSummarizer().summarize(TRIALS, "")

    assert_close(second, at_once)
    assert set(parse(second).counted) == {"a", "b", "c", "d", "e"}


def assert_close(one, other):
    left, right = parse(one).scores, parse(other).scores
    assert left.keys() == right.keys()
    for choice, score in left.items():
        assert (score.measured, score.failed) == (right[choice].measured, right[choice].failed)
        assert score.mean_log == pytest.approx(right[choice].mean_log, abs=1e-5)


async def test_without_trials_the_previous_summary_stays():
    text, _ = await JournalSummarizer().summarize(TRIALS, "")

    assert await JournalSummarizer().summarize([], text) == (text, ())
    assert await JournalSummarizer().summarize([], "") == ("", ())


def test_a_text_of_another_origin_is_no_evidence():
    assert parse("Use larger tiles.\n- BLOCK = 64 is fast\n").scores == {}


def test_a_value_that_only_failed_says_so():
    text = render(merge(parse(""), [TRIALS[3]]))

    assert "- softmax/cpu_rows SUMS = 8: none measured, 1 failed" in text
    assert parse(text).scores[Choice(seed="softmax/cpu_rows", name="SUMS", value="8")] == Score(failed=1)


speedups = st.floats(0.01, 100.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["8", "16"]), st.none() | speedups), max_size=12))
def test_what_is_rendered_is_what_is_parsed(runs):
    outcomes = [measured(speed) if speed else Crashed(reason="", how="abort") for _, speed in runs]
    trials = [
        trial(f"t{index}", SEEDED.format(value), outcome)
        for index, ((value, _), outcome) in enumerate(zip(runs, outcomes, strict=True))
    ]
    evidence = merge(parse(""), trials)

    back = parse(render(evidence))

    assert back.counted == evidence.counted
    assert_close(render(back), render(evidence))
