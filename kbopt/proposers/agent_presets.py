"""Agents that kbopt knows how to start, and what each says that it spent.

The options are those of the programs' own documentation: Claude Code's headless mode, `codex exec` and
`opencode run`. Each reads the task from standard input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kbopt.core.costs import Usage

TOOL_TIMEOUT_S = 1800
"""How long the programs are told to wait for one tool: an evaluation waits for others, or for a container."""

PYTHON, MODULE, PLACE = "{python}", "kbopt.agents.brief", "{place}"
"""What stands for this Python and for the file with the desk's place in a command."""

_CODEX = {
    "mcp_servers.kbopt.command": f'"{PYTHON}"',
    "mcp_servers.kbopt.args": f'["-P","-m","{MODULE}","{PLACE}"]',
    # Without it `codex exec` has nobody to ask, and refuses every tool that is not read-only.
    "mcp_servers.kbopt.default_tools_approval_mode": '"approve"',
    "mcp_servers.kbopt.tool_timeout_sec": str(TOOL_TIMEOUT_S),
}

PRESETS: Mapping[str, tuple[str, ...]] = {
    "claude": (
        *("claude", "-p", "--output-format", "stream-json", "--verbose"),
        *("--mcp-config", ".mcp.json", "--strict-mcp-config", "--permission-mode", "acceptEdits"),
        *("--allowedTools", "mcp__kbopt,Read,Write,Edit,Glob,Grep"),
    ),
    "codex": (
        *("codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "workspace-write"),
        *(word for name, value in _CODEX.items() for word in ("-c", f"{name}={value}")),
        "-",
    ),
    "opencode": ("opencode", "run", "--format", "json"),
}

WRITABLE: Mapping[str, tuple[str, ...]] = {
    "claude": ("~/.claude", "~/.claude.json"),
    "codex": ("~/.codex",),
    "opencode": (
        "~/.local/share/opencode",
        "~/.local/state/opencode",
        "~/.cache/opencode",
        "~/.config/opencode",
    ),
}
"""Where each keeps its login and its sessions: it does not start where it cannot write there."""


_MOST = 10**12
"""Dollars or tokens of one line: a larger number is no count of either."""


def usage_of(output: str, model: str, seconds: float) -> Usage:
    """What an agent that printed `output` spent, as far as its JSON lines say; dollars None where not.

    Knows Claude Code's `result`, Codex's `turn.completed` and OpenCode's `step_finish`, whoever prints them.
    """
    requests, tokens_in, tokens_out = 0, 0, 0
    usd: float | None = None
    for line in _objects(output):
        match line.get("type"):
            case "result":
                told, paid = line.get("usage"), line.get("total_cost_usd")
                requests += _count(line.get("num_turns"))
            case "turn.completed":
                told, paid = line.get("usage"), None
                requests += 1
            case "step_finish":
                part = _object(line.get("part"))
                told, paid = part.get("tokens"), part.get("cost")
                requests += 1
            case _:
                continue
        names_in = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "input")
        tokens_in += sum(_count(_object(told).get(name)) for name in names_in)
        tokens_out += sum(
            _count(_object(told).get(name)) for name in ("output_tokens", "output", "reasoning")
        )
        if isinstance(paid, int | float) and not isinstance(paid, bool) and 0 <= paid <= _MOST:
            usd = (usd or 0.0) + paid
    return Usage(
        model=model,
        requests=max(requests, 1),
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        usd=usd,
        seconds=seconds,
    )


def _objects(output: str) -> Iterator[dict[str, Any]]:
    for line in output.split("\n"):  # JSON lines end at line feeds alone.
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST else 0
