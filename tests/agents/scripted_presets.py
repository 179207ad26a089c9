"""Stands for `claude`, `codex` and `opencode`: takes their options and no others, finds the MCP server where
each of them does, works as the scripted agent, and ends with what each of them prints.

`python scripted_presets.py NAME KERNEL -- THE PROGRAM'S OWN WORDS`
"""

import argparse
import asyncio
import json
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import scripted_agent

TOOLS = "mcp__kbopt,Read,Write,Edit,Glob,Grep"


def claude(words: list[str]) -> tuple[list[str], object]:
    """https://code.claude.com/docs/en/cli-reference"""
    parser = argparse.ArgumentParser()
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["text", "json", "stream-json"])
    parser.add_argument("--verbose", action="store_true", required=True)
    parser.add_argument("--mcp-config", required=True)
    parser.add_argument("--strict-mcp-config", action="store_true")
    parser.add_argument("--permission-mode", choices=["default", "acceptEdits", "plan"])
    parser.add_argument("--allowedTools", choices=[TOOLS])
    options = parser.parse_args(words)
    server = json.loads(Path(options.mcp_config).read_text())["mcpServers"]["kbopt"]
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7}
    end = {"type": "result", "subtype": "success", "num_turns": 4, "total_cost_usd": 0.5, "usage": usage}
    return [server["command"], *server["args"]], end


def codex(words: list[str]) -> tuple[list[str], object]:
    """https://developers.openai.com/codex/cli/reference"""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["exec"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--skip-git-repo-check", action="store_true")
    parser.add_argument("--sandbox", choices=["read-only", "workspace-write", "danger-full-access"])
    parser.add_argument("-c", action="append", default=[])
    parser.add_argument("prompt", choices=["-"])
    server = tomllib.loads("\n".join(parser.parse_args(words).c))["mcp_servers"]["kbopt"]
    assert server["default_tools_approval_mode"] == "approve"
    end = {
        "type": "turn.completed",
        "usage": {"input_tokens": 100, "cached_input_tokens": 90, "output_tokens": 7},
    }
    return [server["command"], *server["args"]], end


def opencode(words: list[str]) -> tuple[list[str], object]:
    """https://opencode.ai/docs/cli"""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--format", choices=["default", "json"])
    parser.parse_args(words)
    server = json.loads(Path("opencode.json").read_text())["mcp"]["kbopt"]
    assert (server["type"], server["enabled"]) == ("local", True)
    part = {"type": "step-finish", "cost": 0.125, "tokens": {"input": 100, "output": 7, "reasoning": 0}}
    return server["command"], {"type": "step_finish", "part": part}


if __name__ == "__main__":
    name, kernel, _, *own = sys.argv[1:]
    assert sys.stdin.readline().startswith("Make a faster kernel")
    server, end = {"claude": claude, "codex": codex, "opencode": opencode}[name](own)
    asyncio.run(scripted_agent.work(server, [kernel]))
    print(json.dumps(end), flush=True)
