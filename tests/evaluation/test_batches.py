"""What batches say of single calls on a GPU, on constructed blocks."""

from dataclasses import replace

import pytest

from kbopt.evaluation.timing.batches import Alone, Batches, Evidence, read_gpu_session
from kbopt.evaluation.timing.intervals import GPU_SCATTER, LAUNCH_SCATTER, WAITING_SCATTER
from kbopt.evaluation.timing.samples import Block, Overhead, Session

AROUND_MS = {1: 0.4, 32: 0.5}
COPIES = Overhead(fixed_ms=0.001, per_call_ms=0.002)
ALONE = Alone(reference_ms=0.05, copies=COPIES, around=Overhead.through(1, 0.4, 32, 0.5))
ALLOWED_MS = 0.004
"""Twice the scatter of what is around a batch."""


def single(native_ms: float) -> Block:
    return Block(native_ms=(native_ms,), wall_ms=native_ms + 0.7)


def batch(length: int, call_ms: float, *, more_ms: float = 0.0, late: bool = False) -> Block:
    wall_ms = AROUND_MS[length] + length * call_ms + more_ms
    return Block(native_ms=(0.0,) * length, wall_ms=wall_ms, is_late=late)


def batches(
    length: int,
    *calls_ms: float,
    reference_ms: float | None = None,
    late: bool = False,
    around_grown_ms: float = 0.0,
) -> Batches:
    """Of a candidate whose calls take `calls_ms`, one figure a batch, while its own clock stands still."""
    theirs = [] if reference_ms is None else [batch(length, reference_ms)] * 3
    return Batches(
        known_around_ms=AROUND_MS[length],
        known_copies_ms=COPIES.of(length),
        copies=tuple(
            batch(length, 0.002, more_ms=0.001 + more_ms)
            for more_ms in (around_grown_ms, around_grown_ms, around_grown_ms + 9.0)
        ),
        reference=tuple(theirs),
        kernel=tuple(batch(length, call_ms, late=late) for call_ms in calls_ms),
    )


def session(
    evidence: Evidence, native_ms: float, reference_ms: float = 0.05, alone: Alone = ALONE
) -> Session:
    return read_gpu_session([single(reference_ms)] * 12, [single(native_ms)] * 12, evidence, alone)


def test_a_single_call_takes_what_a_batch_of_one_takes():
    """It says a microsecond, of 0.05 ms. The shortest batch counts: turns of other processes only add."""
    seen = session(Evidence(ones=batches(1, 0.3, 0.05, 2.0)), native_ms=0.001)

    assert not seen.clocks_agree
    assert seen.kernel_ms == pytest.approx([0.05 / 1.02 - ALLOWED_MS] * 12)
    assert seen.clocks.wall_ms == pytest.approx(0.05 / 1.02 - ALLOWED_MS)


def test_what_is_hidden_a_little_is_charged_and_no_reason_to_refuse():
    seen = session(Evidence(ones=batches(1, 0.5, 0.5, 0.5)), native_ms=0.4)

    assert seen.clocks_agree
    assert seen.kernel_ms == pytest.approx([0.5 / 1.02 - ALLOWED_MS] * 12)


@pytest.mark.parametrize("native_ms", [0.006, 0.05, 3.0])
def test_an_honest_kernel_is_as_fast_as_it_says(native_ms: float):
    longer = batches(32, *[1.2 * native_ms] * 3, reference_ms=0.05)
    evidence = Evidence(ones=batches(1, native_ms + 0.004, 1.01 * native_ms, 9.0), longer=longer)

    seen = session(evidence, native_ms)

    assert seen.clocks_agree
    assert seen.kernel_ms == pytest.approx([native_ms] * 12)


@pytest.mark.parametrize(("seen_ms", "is_honest"), [(0.007, True), (0.012, False)])
def test_a_call_of_microseconds_is_refused_only_beyond_what_scatters(seen_ms: float, is_honest: bool):
    seen = session(Evidence(ones=batches(1, seen_ms)), native_ms=0.002)

    assert seen.clocks_agree == is_honest
    assert seen.kernel_ms == pytest.approx([seen_ms / 1.02 - ALLOWED_MS] * 12)


def test_launching_that_no_batch_holds_is_in_the_time():
    """A call of very many kernels is queued before its inputs come, in a batch."""
    seen = session(Evidence(ones=batches(1, 0.1, 0.1, 0.1)), 0.5)

    assert seen.kernel_ms == pytest.approx([0.5] * 12)
    assert seen.is_launch_bound
    (note,) = seen.notes
    assert "would take 0.1 of its 0.5 ms" in note


@pytest.mark.parametrize(
    ("queued_ms", "native_ms"), [(0.9, 1.0), (0.006, 0.015), (0.38, 0.3), (0.001, 0.006)]
)
def test_a_call_that_is_launched_in_time_is_not_bound_by_that(queued_ms: float, native_ms: float):
    """Nor one of microseconds, whose batches scatter by as much."""
    seen = session(Evidence(ones=batches(1, queued_ms)), native_ms)

    assert not seen.is_launch_bound
    assert seen.notes == []


def test_what_microseconds_hide_in_a_batch_of_one_is_seen_in_longer_ones():
    """Of 6 us the four that scatter around a batch could be hidden."""
    ones = batches(1, 0.006, 0.006, 0.006)
    longer = batches(32, 0.006, 0.006, 0.3, reference_ms=0.05)

    alone = session(Evidence(ones=ones), native_ms=0.002)
    beside = session(Evidence(ones=ones, longer=longer), native_ms=0.002)

    assert alone.kernel_ms == pytest.approx([0.002] * 12)
    assert beside.kernel_ms == pytest.approx([(0.006 - ALLOWED_MS / 32) / 1.3] * 12)


def test_one_longer_batch_that_was_skipped_or_disturbed_does_not_count():
    """Not all of its answers are checked."""

    def least_ms(*calls_ms: float) -> float:
        evidence = Evidence(ones=batches(1, 0.05), longer=batches(32, *calls_ms, reference_ms=0.05))
        return evidence.least_longer_ms(0.05)

    assert least_ms(0.0, 0.05, 0.05) == pytest.approx(least_ms(0.05, 0.05, 0.05))
    assert least_ms(0.05, 0.9, 0.05) == pytest.approx(least_ms(0.05, 0.05, 0.05))


def test_longer_batches_of_a_reference_that_somebody_slowed_down_prove_no_faster_kernel():
    """A turn of 2 ms among 32 of its calls would let 14 us pass for 3."""
    longer = batches(32, 0.014, reference_ms=0.014 + 2 / 32)

    least_ms = Evidence(ones=batches(1, 0.014), longer=longer).least_longer_ms(0.014)

    assert least_ms == pytest.approx((0.014 - ALLOWED_MS / 32) / (1.3 * 1.5))


@pytest.mark.parametrize(
    ("longer", "cached_ms"),
    [
        (batches(32, 0.03, reference_ms=0.12), 0.0),  # Both take longer where they follow each other closely.
        (batches(32, 0.029), 0.0),  # The reference is slow, and was not asked.
        (batches(32, 0.035, reference_ms=0.05), 0.01),
    ],
)
def test_calls_that_follow_each_other_closely_may_take_longer(longer: Batches, cached_ms: float):
    evidence = Evidence(ones=batches(1, 0.023), longer=longer, cached_ms=cached_ms)

    assert session(evidence, native_ms=0.023).kernel_ms == pytest.approx([0.023] * 12)


@pytest.mark.parametrize(("grown_ms", "less_ms"), [(2.0, 0.0), (0.01, 0.0), (-0.01, 0.01)])
def test_what_is_around_a_batch_only_ever_turns_out_to_be_less(grown_ms: float, less_ms: float):
    """Work that somebody left on the device lengthens the others' batches, and is over when its own begin."""
    seen = session(Evidence(ones=batches(1, 0.5, around_grown_ms=grown_ms)), native_ms=0.1)

    assert seen.kernel_ms == pytest.approx([(0.5 + less_ms) / 1.02 - ALLOWED_MS] * 12)


def test_a_call_that_waits_for_the_device_is_charged_all_of_it_and_not_refused():
    evidence = Evidence(ones=batches(1, 0.09, 0.08, 0.1, late=True))

    seen = session(evidence, native_ms=0.02)

    assert evidence.waits
    assert seen.clocks_agree
    assert not seen.is_launch_bound
    assert "waits for the device" in seen.notes[0]
    assert seen.kernel_ms == pytest.approx([0.08] * 12)
    assert seen.reference_ms == pytest.approx([0.05] * 12)
    assert seen.gpu_scatters == (WAITING_SCATTER, GPU_SCATTER)


@pytest.mark.parametrize(
    ("batch_ms", "most_ms", "taken_off_ms"),
    [
        (0.15, 0.1, 0.1),
        (0.15, 0.06, 0.06),  # No more than before the candidate was loaded.
        (0.04, 0.1, -0.01),  # Single calls launch more slowly than batches: the candidate's do too.
    ],
)
def test_a_call_that_waits_as_the_reference_does_is_charged_alike(
    batch_ms: float, most_ms: float, taken_off_ms: float
):
    evidence = Evidence(ones=batches(1, 0.3, 0.32, 0.9, reference_ms=batch_ms, late=True))

    seen = session(evidence, native_ms=0.02, alone=replace(ALONE, waiting_ms=most_ms))

    assert seen.kernel_ms == pytest.approx([0.32 - taken_off_ms] * 12)
    assert seen.reference_waits
    assert seen.gpu_scatters == (WAITING_SCATTER, WAITING_SCATTER)


def test_a_call_of_more_kernels_than_a_stream_holds_is_bound_by_launching():
    """The first thousand are queued when its inputs come; then it waits."""
    seen = session(Evidence(ones=batches(1, 3.0, late=True)), native_ms=12.0)

    assert seen.kernel_ms == pytest.approx([12.0] * 12)
    assert seen.is_launch_bound
    assert seen.gpu_scatters == (LAUNCH_SCATTER, GPU_SCATTER)
    waits, launching = seen.notes
    assert "more than a thousand kernels" in waits
    assert "would take 3 of its 12 ms" in launching


def test_a_call_that_took_less_than_nothing_was_not_where_it_was_looked_for():
    assert session(Evidence(ones=batches(1, -0.009)), native_ms=0.05).clocks_agree
    assert not session(Evidence(ones=batches(1, -0.011)), native_ms=0.05).clocks_agree
    assert not session(Evidence(ones=batches(1, -0.011, late=True)), native_ms=0.05).clocks_agree


def test_launching_that_is_hidden_from_the_childs_clock_is_seen_by_the_hosts():
    """Of 3 ms it says 0.5, as a batch does. Below a third of a millisecond that clock says nothing."""

    def charged(hidden_ms: float) -> Session:
        hiding = [Block(native_ms=(0.5,), wall_ms=0.5 + 0.7 + hidden_ms)] * 12
        evidence = Evidence(ones=batches(1, 0.5))
        return read_gpu_session([single(3.0)] * 12, hiding, evidence, replace(ALONE, reference_ms=3.0))

    assert charged(2.5).kernel_ms == pytest.approx([3.0 - 0.3] * 12)
    assert charged(2.5).clocks_agree
    assert charged(0.25).kernel_ms == pytest.approx([0.5] * 12)


def test_a_reference_slowed_down_beside_a_candidate_is_taken_as_it_was_alone():
    seen = session(Evidence(ones=batches(1, 0.08)), native_ms=0.08, reference_ms=0.08)

    assert seen.reference_ms == pytest.approx([0.05 * 1.1 + 0.002] * 12)
    assert seen.slowed == pytest.approx(0.08 / 0.057)
    assert "1.40 times" in seen.notes[0]


def test_a_reference_of_microseconds_may_scatter():
    alone = replace(ALONE, reference_ms=0.014)

    assert alone.share_of([0.016, 0.017, 0.018]) == 1.0
