"""What went wrong with a kernel, alike for all kernels with which the same went wrong. Pure."""

from __future__ import annotations

import re

from kbopt.core.outcomes import Measured, Outcome
from kbopt.core.text import first_line

MAX_CHARS = 300


def error_text(outcome: Outcome) -> str:
    """The first line of the reason, with numbers and paths taken out. Of no measured kernel."""
    if isinstance(outcome, Measured):
        raise TypeError("a measured kernel has no error")
    kind = getattr(outcome, "how", "") or getattr(outcome, "family", "")
    text = first_line(outcome.reason, MAX_CHARS)
    text = re.sub(r"(?:/[\w.+-]+)+/", "…/", text)
    text = re.sub(r"0x[0-9a-fA-F]+|(?<![A-Za-z_\d.])\d+(?:\.\d+)?(?:e[+-]?\d+)?", "#", text)
    return f"{kind}: {text}" if kind and kind not in text else text
