"""Text that other programs wrote, made safe and short for a terminal or a table cell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kbopt.core.evaluations import Result
from kbopt.core.outcomes import Speedup
from kbopt.core.protocol import ranked_by
from kbopt.core.scoring import Standing
from kbopt.core.text import plural as plural

BASELINES: Mapping[str, str] = {
    "eager": "eager",
    "compile": "torch.compile",
    "max-autotune": "torch.compile max-autotune",
    "cuda-graph": "a CUDA graph",
}
"""How text names what a speedup is over."""

_RANKED_OVER: Mapping[str, str] = {
    "eager": "eager PyTorch",
    "compile": "torch.compile",
    "best": "the fastest baseline",
}
"""How text names what a protocol ranks by."""

_SIMULATED = "Simulated"
"""How the name of the simulated device begins, which runs no PyTorch."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters: escape sequences could drive the terminal
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they reorder what is read
    "\ud800-\udfff]"  # lone surrogates cannot be encoded
)


def printable(text: str) -> str:
    """`text` with control and bidirectional characters written as escapes; `\\t` and `\\n` stay.

    A kernel's source and a compiler's log are not trusted: printed as they are, they could move the
    cursor, recolour the screen or show code in another order than it runs in.
    """
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def truncated(text: str, limit: int) -> str:
    """The start and end of `text`, at most about `limit` characters, and how much was left out between."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    head = limit - tail
    return f"{text[:head]}\n… {len(text) - limit:,} characters left out …\n{text[-tail:]}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ranked_over(result: Result) -> str:
    """What the speedup of `result` is over, in words."""
    if result.device.startswith(_SIMULATED):
        return "the simulated reference"
    return _RANKED_OVER[ranked_by(result.protocol)[0]]


def figure(value: float) -> str:
    """Three digits of a ratio: `0.0123`, `1.83`, `12.40`, `1,240`."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3g}"


def speedup_text(speedup: float | None, ci: tuple[float, float] | None = None) -> str:
    """`1.83x [1.79, 1.88]`, or a dash where nothing correct was measured."""
    if speedup is None:
        return "–"
    interval = f" [{figure(ci[0])}, {figure(ci[1])}]" if ci else ""
    return f"{figure(speedup)}x{interval}"


def standing_text(best: Standing | None) -> str:
    """`speedup_text` of a kernel, with what may not be claimed of it: `1.03x [0.96, 1.11], not faster`."""
    if best is None:
        return speedup_text(None)
    said = "" if best.state == "faster" else f", {best.state}"
    return f"{speedup_text(best.speedup, best.speedup_ci)}{said}"


def over_text(speedup: Speedup) -> str:
    """`1.40x over torch.compile [1.30, 1.50]`."""
    low, high = speedup.interval
    over = BASELINES.get(speedup.baseline, speedup.baseline)
    return f"{figure(speedup.speedup)}x over {over} [{figure(low)}, {figure(high)}]"
