"""Parses a trace of torch's profiler: the parts in which one call of a model spends its time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kbopt.core.profile import Launch, Part, Trace

CALL = "kbopt.call"
"""The name of the annotation around the call."""
OWN_CODE = "outside of ATen: the model's own code"
"""The name of the part of a call that no operation of ATen covers."""
MOST_PARTS = 20
"""Parts of a call that are reported, the longest ones. Texts show fewer; `--json` has all of these."""
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    start_us: float
    us: float
    launch: Launch | None = None

    @property
    def end_us(self) -> float:
        return self.start_us + self.us


def traced(text: str, *, on_cuda: bool) -> Trace:
    """Parse a trace in Chrome's format that holds one call, on a CPU within the annotation `CALL`.

    The rates are zero, because they depend on the task. Raises ValueError for a text that is no JSON, and
    LookupError for one without the call.
    """
    events = json.loads(text)["traceEvents"]
    return _on_gpu(events) if on_cuda else _on_cpu(events)


def _on_gpu(events: Sequence[Any]) -> Trace:
    ran = sorted(
        (_event(e) for e in events if e.get("ph") == "X" and e.get("cat") in _ON_DEVICE),
        key=lambda event: event.start_us,
    )
    if not ran:
        raise LookupError("no kernel ran on the GPU")
    busy_us, until = 0.0, ran[0].start_us
    for event in ran:  # Kernels of several streams may overlap.
        busy_us += max(0.0, event.end_us - max(until, event.start_us))
        until = max(until, event.end_us)
    return _trace(until - ran[0].start_us, busy_us, [(e.name, e.us, e.launch) for e in ran])


def _on_cpu(events: Sequence[Any]) -> Trace:
    spans = [e for e in events if e.get("ph") == "X" and e.get("cat") in ("cpu_op", "user_annotation")]
    call = next((e for e in spans if e.get("name") == CALL), None)
    if call is None:
        raise LookupError("the trace does not have the call")
    whole = _event(call)
    inside = [
        _event(e)
        for e in spans
        if e.get("tid") == call.get("tid") and e is not call and whole.start_us <= e["ts"] <= whole.end_us
    ]
    rows: list[tuple[str, float, Launch | None]] = []
    open_spans: list[tuple[_Event, list[float]]] = [(whole, [])]
    for event in sorted(inside, key=lambda e: (e.start_us, -e.us)):
        while len(open_spans) > 1 and event.start_us >= open_spans[-1][0].end_us:
            rows.append(_own(*open_spans.pop()))
        open_spans[-1][1].append(event.us)
        open_spans.append((event, []))
    rows += [_own(*span) for span in reversed(open_spans)]
    return _trace(whole.us, whole.us, rows)


def _own(event: _Event, inner_us: list[float]) -> tuple[str, float, Launch | None]:
    """Return the event's own time, without the events inside it."""
    name = OWN_CODE if event.name == CALL else event.name
    return name, max(0.0, event.us - sum(inner_us)), None


def _trace(call_us: float, busy_us: float, rows: Sequence[tuple[str, float, Launch | None]]) -> Trace:
    calls, total_us, launches = defaultdict[str, int](int), defaultdict[str, float](float), {}
    for name, us, launch in rows:
        calls[name] += 1
        total_us[name] += us
        launches[name] = launch
    whole_us = sum(total_us.values()) or 1.0
    longest = sorted(total_us, key=lambda name: -total_us[name])[:MOST_PARTS]
    return Trace(
        call_us=call_us,
        busy_us=busy_us,
        num_parts=len(rows),
        parts=tuple(
            Part(
                name=name,
                calls=calls[name],
                us=total_us[name],
                share=total_us[name] / whole_us,
                launch=launches[name],
            )
            for name in longest
        ),
        gbps=0.0,
        tflops=0.0,
    )


def _event(raw: Any) -> _Event:
    return _Event(str(raw["name"]), float(raw["ts"]), float(raw["dur"]), _launch(raw.get("args", {})))


def _launch(arguments: Any) -> Launch | None:
    grid, block = arguments.get("grid"), arguments.get("block")
    if not grid or not block:
        return None
    return Launch(
        grid=(int(grid[0]), int(grid[1]), int(grid[2])),
        block=(int(block[0]), int(block[1]), int(block[2])),
        registers=int(arguments.get("registers per thread", 0)),
        shared_bytes=int(arguments.get("shared memory", 0)),
    )
