"""A profile in words, bounded: for a terminal, and for whoever writes the next kernel."""

from __future__ import annotations

from kbopt.core.profile import (
    Bottleneck,
    Code,
    Counted,
    Counters,
    KernelCode,
    Launch,
    Limits,
    Missing,
    NotProfiled,
    Part,
    Profile,
    Profiled,
    Trace,
)
from kbopt.core.text import first_line

MAX_CHARS = 3500
"""Characters of a profile in words: a prompt holds a kernel, its feedback and this."""
MAX_OUTCOME_CHARS = 300
"""Characters of an outcome in a line, which the journal keeps."""
_SHOWN_PARTS = 6
_SHOWN_CODE = 3
_SHOWN_MIX = 4
_BESIDE_KERNELS = (
    "A trace counts kernels alone; a timed call also has gaps, launches that wait and the events around it. "
    "Both begin with a cold L2."
)
"""Without it a reader of both figures, such as 33.7 us busy and 0.0380 ms as timed, looks for an error."""
_NOTABLE = 0.05
"""Times that differ by less are called equal: a trace is of a few calls."""


def text_of(profile: Profile, parent: Profile | None = None) -> str:
    """All tiers, and with `parent` what changed against it."""
    lines = [facts_line(profile), limits_line(profile)]
    if profile.bottleneck is not None:
        found = profile.bottleneck
        lines += [f"Bottleneck: {_bottleneck(found)}.", f"Try: {found.suggestion}"]
    lines += _trace(profile.trace, "A call", profile.limits)
    lines += _trace(profile.reference, "The reference's call", profile.limits, most=3)
    if isinstance(profile.trace, Trace) and profile.device.shared_bytes:
        lines.append(_BESIDE_KERNELS)
    lines += _counters(profile.counters)
    lines += _code(profile.code)
    if parent is not None:
        lines.append(f"Against the parent: {'; '.join(changes(profile, parent)) or 'nothing changed'}.")
    text = "\n".join(lines)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def outcome_text(profiled: Profiled) -> str:
    """What was found out, in a line."""
    if isinstance(profiled, NotProfiled):
        return first_line(f"no profile: {profiled.reason}", MAX_OUTCOME_CHARS)
    if profiled.bottleneck is None:
        return "no tier says what limits it"
    return _bottleneck(profiled.bottleneck)


def _bottleneck(found: Bottleneck) -> str:
    figures = ", ".join(f"{f.what} {f.value:.3g}{' ' if f.unit else ''}{f.unit}" for f in found.figures)
    return f"{found.bound}, by its {found.by} ({figures})"


def task_text(profile: Profile) -> str:
    """Of the task's own model: the device, the floor, and what the reference spends its time in."""
    trace = _trace(profile.trace, "The reference's call", profile.limits)
    return "\n".join([facts_line(profile), limits_line(profile), *trace])[:MAX_CHARS]


def facts_line(profile: Profile) -> str:
    """The device, with what limits kernels on it."""
    device = profile.device
    peaks = ", ".join(f"{name} {peak:.3g}" for name, peak in device.peak_tflops.items())
    units = f": {device.units} multiprocessors" if device.shared_bytes else ""
    parts = [
        f"{device.name}{units}",
        f"a copy reaches {device.bandwidth_gbps:.4g} GB/s",
        f"peak TFLOP/s {peaks}",
    ]
    if device.cache_bytes:
        parts.append(f"{'L2' if device.shared_bytes else 'last cache'} {device.cache_bytes / 2**20:.3g} MiB")
    if device.shared_bytes:
        parts.append(f"shared memory up to {device.shared_bytes / 2**10:.3g} KiB a block")
    versions = ", ".join(f"{name} {version}" for name, version in device.versions.items())
    return f"{'; '.join(parts)}; {versions}."


def limits_line(profile: Profile) -> str:
    """The task's floor, and how far the kernel and the reference are from it."""
    limits, ways = profile.limits, [("the kernel", profile.trace), ("the reference", profile.reference)]
    reached = [
        f"{name} takes {trace.busy_us / 1000 / limits.floor_ms:.3g} times that"
        for name, trace in ways
        if isinstance(trace, Trace) and limits.floor_ms
    ]
    text = f"The task's {limits.size_bytes / 1e6:.4g} MB need {limits.floor_ms:.3g} ms at that bandwidth"
    if limits.operations_count:
        text += (
            f", the reference's {limits.operations / 1e9:.4g} GFLOP {limits.operations_ms:.3g} ms at the peak"
        )
    return f"{'; '.join([text, *reached])}."


def changes(profile: Profile, parent: Profile) -> list[str]:
    """What differs from the parent's profile, in words; empty where nothing does."""
    found: list[str] = []
    if isinstance(profile.trace, Trace) and isinstance(parent.trace, Trace):
        now, then = profile.trace, parent.trace
        if abs(now.busy_us - then.busy_us) > _NOTABLE * then.busy_us:
            found.append(f"busy {then.busy_us:.4g} us -> {now.busy_us:.4g} us")
        if now.num_parts != then.num_parts:
            found.append(f"launches {then.num_parts} -> {now.num_parts}")
        if abs(now.gap_share - then.gap_share) > _NOTABLE:
            found.append(f"idle {then.gap_share:.0%} -> {now.gap_share:.0%}")
        mine, before = _slowest_launch(now), _slowest_launch(then)
        if mine and before and abs(mine.occupancy - before.occupancy) > _NOTABLE:
            found.append(f"occupancy of the longest kernel {before.occupancy:.0%} -> {mine.occupancy:.0%}")
    if isinstance(profile.counters, Counters) and isinstance(parent.counters, Counters):
        moved, moved_then = (
            sum(k.dram_bytes for k in c.kernels) for c in (profile.counters, parent.counters)
        )
        if abs(moved - moved_then) > _NOTABLE * moved_then:
            found.append(f"DRAM traffic {moved_then / 1e6:.4g} MB -> {moved / 1e6:.4g} MB")
    if isinstance(profile.code, Code) and isinstance(parent.code, Code):
        found += _code_changes(profile.code, parent.code)
    bounds = [p.bottleneck.bound if p.bottleneck else "unknown" for p in (parent, profile)]
    if bounds[0] != bounds[1]:
        found.append(f"bound {bounds[0]} -> {bounds[1]}")
    return found


def _slowest_launch(trace: Trace) -> Launch | None:
    return trace.parts[0].launch if trace.parts else None


def _code_changes(now: Code, then: Code) -> list[str]:
    """Of the worst kernel of either, by each figure."""
    figures = (
        ("registers", lambda k: k.registers or 0),
        ("local bytes", lambda k: k.local_bytes or 0),
        ("shared bytes", lambda k: k.shared_bytes or 0),
        ("vector bits", lambda k: k.vector_bits),
    )
    most = [(what, *(max(map(of, code.kernels), default=0) for code in (then, now))) for what, of in figures]
    return [f"{what} {before} -> {after}" for what, before, after in most if before != after]


def _trace(trace: Trace | Missing, what: str, limits: Limits, most: int = _SHOWN_PARTS) -> list[str]:
    if isinstance(trace, Missing):
        return [f"{what} was not traced: {trace.reason}."]
    rates = f"{trace.gbps:.4g} GB/s of the task's bytes"
    if limits.operations_count:
        rates += f", {trace.tflops:.3g} TFLOP/s of the reference's operations"
    head = f"{what}: {trace.busy_us:.4g} us busy, {trace.gap_share:.0%} idle in between, {rates}"
    shown = [_part(part) for part in trace.parts[:most]]
    left = trace.num_parts - sum(part.calls for part in trace.parts[:most])
    return [f"{head}:", *shown, *([f"  and {left} more"] if left > 0 else [])]


def _part(part: Part) -> str:
    text = f"  {part.share:.0%} {part.us:.4g} us {part.calls}x {part.name}"
    if part.launch is None:
        return text
    launch = part.launch
    grid, block = ("x".join(map(str, size)) for size in (launch.grid, launch.block))
    text += f" (grid {grid}, block {block}, {launch.registers} registers, {launch.shared_bytes} B shared"
    if launch.limited_by:
        text += f", occupancy {launch.occupancy:.0%} by {launch.limited_by}"
    return f"{text})"


def _counters(counters: Counters | Missing) -> list[str]:
    if isinstance(counters, Missing):
        return [f"Counters: not read, {counters.reason}."]
    return ["Counters, percent of peak:", *map(_counted, counters.kernels[:_SHOWN_PARTS])]


def _counted(kernel: Counted) -> str:
    return (
        f"  {kernel.us:.4g} us {kernel.name}: compute {kernel.compute_pct:.3g}, DRAM {kernel.dram_pct:.3g}, "
        f"L2 {kernel.l2_pct:.3g}, warps {kernel.occupancy_pct:.3g}, L2 hits {kernel.l2_hit_pct:.3g}; "
        f"{kernel.dram_bytes / 1e6:.4g} MB; waits most for {kernel.stall} "
        f"({kernel.stall_cycles:.3g} cycles an instruction)"
    )


def _code(code: Code | Missing) -> list[str]:
    if isinstance(code, Missing):
        return [f"Machine code: not read, {code.reason}."]
    return ["Machine code:", *(_kernel(kernel) for kernel in code.kernels[:_SHOWN_CODE])]


def _kernel(kernel: KernelCode) -> str:
    mix = ", ".join(f"{part.kind} {part.share:.0%}" for part in kernel.mix[:_SHOWN_MIX])
    text = f"  {kernel.name} ({kernel.target}): {kernel.instructions} instructions ({mix})"
    if kernel.vector_bits:
        text += (
            f", widest {'load' if kernel.registers is not None else 'arithmetic'} {kernel.vector_bits} bits"
        )
    if kernel.registers is not None:
        text += (
            f", {kernel.registers} registers, {kernel.shared_bytes} B shared, {kernel.local_bytes} B local"
        )
    return text
