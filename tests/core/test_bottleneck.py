"""What limits a kernel, and what is said of it."""

from dataclasses import replace

import pytest

from kbopt.core import codec
from kbopt.core.bottleneck import bottleneck
from kbopt.core.profile import (
    Bottleneck,
    Code,
    Counted,
    Counters,
    DeviceFacts,
    KernelCode,
    Launch,
    Limits,
    Missing,
    Part,
    Profile,
    Share,
    TierSeconds,
    Trace,
)
from kbopt.core.profile_text import MAX_CHARS, changes, text_of

LIMITS = Limits(size_bytes=100_000_000, operations=10**9, floor_ms=0.025, operations_ms=0.015)
NONE = Missing(reason="there is none")


def trace(busy_us: float, num_parts: int = 1, gap_us: float = 0.0) -> Trace:
    part = Part(name="k", calls=num_parts, us=busy_us, share=1.0)
    return Trace(
        call_us=busy_us + gap_us, busy_us=busy_us, num_parts=num_parts, parts=(part,), gbps=1e3, tflops=2.0
    )


def counted(compute: float, dram: float, l2: float, warps: float = 80.0, **others: object) -> Counters:
    kernel = Counted(
        name="k",
        us=40.0,
        compute_pct=compute,
        dram_pct=dram,
        l2_pct=l2,
        occupancy_pct=warps,
        l2_hit_pct=50.0,
        dram_bytes=100_000_000,
        stall="global memory",
        stall_cycles=12.0,
    )
    return Counters(kernels=(replace(kernel, **others),))


def code(**fields: object) -> Code:
    kernel = KernelCode(
        name="k",
        target="sm_90",
        instructions=100,
        vector_bits=128,
        mix=(Share(kind="fp32", share=0.4),),
        registers=40,
        shared_bytes=0,
        local_bytes=0,
    )
    return Code(kernels=(replace(kernel, **fields),))


def found(
    traced: Trace, counters: Counters | Missing = NONE, built: Code | Missing = NONE, *, on_cuda: bool = True
) -> Bottleneck:
    answer = bottleneck(LIMITS, traced, counters, built, on_cuda=on_cuda)
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    ("traced", "counters", "bound", "by"),
    [
        (trace(30.0), NONE, "memory", "trace"),  # 25 of 30 us
        (trace(45.0), NONE, "latency", "trace"),
        (trace(12.0, num_parts=6), NONE, "launch", "trace"),  # 2 us each
        (trace(60.0, num_parts=3, gap_us=40.0), NONE, "launch", "trace"),
        (trace(60.0, num_parts=3, gap_us=10.0), NONE, "latency", "trace"),
        (trace(40.0), counted(30, 85, 60), "memory", "counters"),
        (trace(40.0), counted(30, 40, 90), "memory", "counters"),
        (trace(40.0), counted(75, 40, 50), "compute", "counters"),
        (trace(40.0), counted(30, 45, 50), "latency", "counters"),
        (trace(60.0, num_parts=3, gap_us=40.0), counted(30, 85, 60), "launch", "trace"),
    ],
)
def test_each_class_is_told_by_its_figures(
    traced: Trace, counters: Counters | Missing, bound: str, by: str
) -> None:
    answer = found(traced, counters)
    assert (answer.bound, answer.by) == (bound, by)
    assert len(answer.figures) == 3


def test_arithmetic_is_the_limit_where_operations_need_most_of_the_call() -> None:
    limits = replace(LIMITS, floor_ms=0.005, operations_ms=0.030)
    answer = bottleneck(limits, trace(40.0), NONE, code(), on_cuda=True)
    assert answer is not None
    assert answer.bound == "compute"
    assert "tensor cores" in answer.suggestion
    assert (answer.figures[1].value, answer.figures[2].unit) == (75.0, "TFLOP/s")


def test_operations_that_a_kernel_is_too_fast_to_do_limit_nothing() -> None:
    limits = replace(LIMITS, operations_ms=0.900)
    assert bottleneck(limits, trace(60.0), NONE, code(), on_cuda=True) is None
    near = bottleneck(limits, trace(30.0), NONE, code(), on_cuda=True)  # Its bytes need 25 of the 30 us.
    assert near is not None
    assert near.bound == "memory"


@pytest.mark.parametrize(
    ("counters", "built", "said"),
    [
        (counted(30, 85, 60), code(local_bytes=96), "96 bytes a thread in local memory"),
        (counted(30, 85, 60, dram_bytes=310_000_000), code(), "3.1 times the task's bytes"),
        (counted(30, 85, 60), code(), "near the least"),
        (counted(30, 40, 90), code(), "L2 is the limit"),
        (counted(30, 40, 50, warps=20.0), code(), "more warps resident"),
        (counted(30, 40, 50, stall="barrier"), code(), "wait for each other"),
        (counted(30, 40, 50), code(vector_bits=32), "has 32 bits: load 128 bits"),
        (counted(30, 40, 50), code(), "several independent loads"),
        (counted(80, 40, 50), code(mix=(Share(kind="tensor", share=0.2),)), "fewer operations"),
    ],
)
def test_the_suggestion_is_of_what_was_seen(counters: Counters, built: Code, said: str) -> None:
    assert said in found(trace(40.0), counters, built).suggestion


def test_a_cpu_is_told_of_its_vectors_and_of_dispatching() -> None:
    narrow = code(vector_bits=32, registers=None)
    assert "32 bits wide" in found(trace(400.0), built=narrow, on_cuda=False).suggestion
    assert found(trace(20.0, num_parts=10), on_cuda=False).bound == "launch"
    assert found(trace(20.0, num_parts=2), on_cuda=False).bound == "memory"


def test_nothing_is_said_of_what_was_not_traced() -> None:
    assert bottleneck(LIMITS, NONE, NONE, code(), on_cuda=True) is None


def profile(
    busy_us: float = 40.0, *, occupancy: float = 0.5, local_bytes: int = 0, name: str = "k"
) -> Profile:
    launch = Launch(
        grid=(128, 1, 1),
        block=(256, 1, 1),
        registers=64,
        shared_bytes=4096,
        occupancy=occupancy,
        limited_by="registers",
    )
    part = Part(name=name, calls=1, us=busy_us, share=1.0, launch=launch)
    traced = replace(trace(busy_us), parts=(part,))
    counters, built = counted(30, 85, 60), code(local_bytes=local_bytes)
    return Profile(
        device=DeviceFacts(
            name="NVIDIA H200",
            bandwidth_gbps=4200.0,
            peak_tflops={"fp32": 67.0, "tf32": 494.0},
            units=132,
            cache_bytes=60 * 2**20,
            shared_bytes=227 * 2**10,
            versions={"torch": "2.9.0", "CUDA": "12.8"},
        ),
        limits=LIMITS,
        code=built,
        trace=traced,
        counters=counters,
        reference=trace(100.0, num_parts=2),
        bottleneck=bottleneck(LIMITS, traced, counters, built, on_cuda=True),
        seconds=TierSeconds(waiting=0.0, build=1.0, code=0.1, trace=0.5, counters=9.0, device=9.4),
    )


def test_a_profile_in_words_names_the_device_the_floor_and_every_tier() -> None:
    text = text_of(profile())
    assert "NVIDIA H200: 132 multiprocessors; a copy reaches 4200 GB/s" in text
    assert "L2 60 MiB" in text
    assert "the kernel takes 1.6 times that; the reference takes 4 times that" in text
    assert "Bottleneck: memory, by its counters (DRAM bandwidth in use 85 %" in text
    assert "occupancy 50% by registers" in text
    assert "waits most for global memory" in text
    assert "40 registers, 0 B shared, 0 B local" in text


def test_what_changed_against_the_parent_is_said() -> None:
    assert changes(profile(), profile(40.5)) == []
    assert changes(profile(20.0, occupancy=0.25), profile(local_bytes=64)) == [
        "busy 40 us -> 20 us",
        "occupancy of the longest kernel 50% -> 25%",
        "local bytes 64 -> 0",
    ]
    assert "Against the parent: busy 80 us -> 40 us." in text_of(profile(), profile(80.0))


def test_what_lies_between_a_trace_and_a_timed_call_of_a_gpu_is_said_once() -> None:
    said = "a timed call also has gaps, launches that wait and the events around it."
    on_cpu = replace(profile().device, shared_bytes=0)
    assert text_of(profile()).count(said) == 1
    assert said not in text_of(replace(profile(), trace=NONE))
    assert said not in text_of(replace(profile(), device=on_cpu))


@pytest.mark.parametrize(("operations_ms", "shown"), [(1.493e-11, False), (0.015, True)])
def test_operations_are_told_where_they_matter(operations_ms: float, shown: bool) -> None:
    text = text_of(replace(profile(), limits=replace(LIMITS, operations_ms=operations_ms)))
    assert "The task's 100 MB need 0.025 ms at that bandwidth" in text
    assert ("the reference's 1 GFLOP 0.015 ms at the peak" in text) is shown
    assert ("GFLOP" in text) is shown
    assert ("TFLOP/s of the reference's operations" in text) is shown


def test_the_words_are_bounded() -> None:
    assert len(text_of(profile(name="x" * 10_000))) == MAX_CHARS


def test_a_profile_survives_the_codec() -> None:
    assert codec.loads(Profile, codec.dumps(profile())) == profile()
    without = replace(profile(), counters=NONE, code=NONE, bottleneck=None)
    assert codec.loads(Profile, codec.dumps(without)) == without
