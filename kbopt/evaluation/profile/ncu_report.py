"""The command line of Nsight Compute (`ncu --csv`), and a parser of its output."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import dropwhile

from kbopt.core.profile import Counted, Counters, Missing

MOST_LAUNCHES = 8
"""Launches of a call that are counted at most: ncu replays each for every group of counters."""
_TIME = "gpu__time_duration.sum"
_COMPUTE = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
_DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
_L2 = "lts__throughput.avg.pct_of_peak_sustained_elapsed"
_WARPS = "sm__warps_active.avg.pct_of_peak_sustained_active"
_L2_HITS = "lts__t_sector_hit_rate.pct"
_READ, _WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
_STALLED = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_STALLS = (
    *("long_scoreboard", "short_scoreboard", "barrier", "mio_throttle", "lg_throttle", "math_pipe_throttle"),
    *("wait", "no_instruction", "not_selected"),
)
METRICS = (_TIME, _COMPUTE, _DRAM, _L2, _WARPS, _L2_HITS, _READ, _WRITTEN, *map(_STALLED.format, _STALLS))
"""Metrics of ncu that exist for compute capability 7.0 and later."""
_WORDS = {
    "long_scoreboard": "global memory",
    "short_scoreboard": "shared memory",
    "mio_throttle": "the queue of shared memory",
    "lg_throttle": "the queue of global memory",
    "math_pipe_throttle": "busy arithmetic units",
    "wait": "the latency of arithmetic",
    "no_instruction": "instructions",
    "not_selected": "other warps",
}
_UNITS = {
    "nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0,
    "msecond": 1e3, "ms": 1e3, "second": 1e6, "s": 1e6,
    "byte": 1.0, "kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9,
}  # fmt: skip
"""Factors to microseconds and bytes, by ncu's units in lower case. Its units of bytes are decimal."""
_PERMISSION = (
    "the driver lets only administrators read counters (ERR_NVGPUCTRPERM): load the kernel module nvidia "
    "with NVreg_RestrictProfilingToAdminUsers=0, or give the container the capability SYS_ADMIN"
)


def command(ncu: str, target: list[str]) -> list[str]:
    """Return the command that counts the launches of `target` while CUDA's profiler is started in it."""
    return [
        *(ncu, "--csv", "--page", "raw", "--print-units", "base"),
        *("--clock-control", "none"),  # The clocks must not change: candidates are timed later.
        *("--profile-from-start", "off", "--target-processes", "application-only"),
        *("--launch-count", str(MOST_LAUNCHES), "--metrics", ",".join(METRICS)),
        *target,
    ]


def counters(text: str) -> Counters | Missing:
    """Parse ncu's CSV, or return the reason why it has no counters.

    It may have a row for each launch, after a row of units, or a row for each metric.
    """
    lines = list(dropwhile(lambda line: not line.startswith('"ID"'), text.splitlines()))
    if not lines:
        return Missing(reason=why_none(text))
    rows = list(csv.DictReader(line for line in lines if line.startswith('"')))
    by_launch = _long(rows) if "Metric Name" in (rows[0] if rows else ()) else _wide(rows)
    found = [_counted(name, figures) for name, figures in by_launch.values() if _TIME in figures]
    if not found:
        return Missing(reason=why_none(text))
    return Counters(kernels=tuple(sorted(found, key=lambda kernel: -kernel.us)))


def why_none(text: str) -> str:
    """Return the reason why a run of ncu has no counters."""
    if "ERR_NVGPUCTRPERM" in text:
        return _PERMISSION
    if "No kernels were profiled" in text:
        return "ncu saw no kernel in the call"
    errors = re.findall(r"^==ERROR== (.+)$", text, re.MULTILINE)
    return f"ncu says: {errors[-1]}" if errors else "ncu printed no counters"


def _long(rows: list[dict[str, str]]) -> Mapping[str, tuple[str, dict[str, float]]]:
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for row in rows:
        _, figures = found.setdefault(row["ID"], (row["Kernel Name"], {}))
        value = _number(row["Metric Value"], row["Metric Unit"])
        if value is not None:
            figures[row["Metric Name"]] = value
    return found


def _wide(rows: list[dict[str, str]]) -> Mapping[str, tuple[str, dict[str, float]]]:
    units = defaultdict[str, str](str)
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for row in rows:
        if not row["ID"]:
            units |= row
            continue
        values = {name: _number(row[name], units[name]) for name in METRICS if row.get(name)}
        figures = {name: value for name, value in values.items() if value is not None}
        found[row["ID"]] = (row["Kernel Name"], figures)
    return found


def _number(text: str, unit: str) -> float | None:
    try:
        return float(text.replace(",", "")) * _UNITS.get(unit.lower(), 1.0)
    except ValueError:  # `n/a`: the GPU does not have this counter.
        return None


def _counted(name: str, figures: Mapping[str, float]) -> Counted:
    waits = {stall: figures.get(_STALLED.format(stall), 0.0) for stall in _STALLS}
    stall = max(waits, key=lambda one: waits[one])
    return Counted(
        name=name,
        us=figures[_TIME],
        compute_pct=figures.get(_COMPUTE, 0.0),
        dram_pct=figures.get(_DRAM, 0.0),
        l2_pct=figures.get(_L2, 0.0),
        occupancy_pct=figures.get(_WARPS, 0.0),
        l2_hit_pct=figures.get(_L2_HITS, 0.0),
        dram_bytes=int(figures.get(_READ, 0.0) + figures.get(_WRITTEN, 0.0)),
        stall=_WORDS.get(stall, stall),
        stall_cycles=waits[stall],
    )
