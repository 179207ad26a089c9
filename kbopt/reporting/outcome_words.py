"""Outcomes on a terminal: their order, colours and counts."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

OUTCOME_STYLES: Mapping[str, str] = {
    "measured": "green",
    "wrong_answer": "yellow",
    "compile_failed": "magenta",
    "crashed": "red",
    "timed_out": "blue",
    "rejected": "bright_red",
}
"""In the order in which outcomes are listed everywhere."""

STATE_STYLES: Mapping[str, str] = {
    "faster": "bold green",
    "not faster": "bold dim",
    "no custom kernel": "bold yellow",
}


def outcome_text(by_outcome: Mapping[str, int]) -> Text:
    """How many proposals had each outcome."""
    text = Text()
    for name, style in OUTCOME_STYLES.items():
        if by_outcome.get(name):
            text.append(f"{'  ' if text else ''}{by_outcome[name]} {name}", style=style)
    return text or Text("nothing evaluated yet", style="dim")


def uncounted(cached: int, dropped: int, failed: int) -> str:
    """The proposals that were not evaluated, and why; empty for none."""
    words = [
        f"{cached:,} seen before" if cached else "",
        f"{dropped:,} dropped as near-copies" if dropped else "",
        f"{failed:,} without a kernel" if failed else "",
    ]
    return ", ".join(filter(None, words))
