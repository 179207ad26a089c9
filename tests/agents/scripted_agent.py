"""An agent without a model: a real process that speaks real MCP, by the official SDK.

`python scripted_agent.py KERNEL...` has each kernel judged in turn, by the server that `.mcp.json` names, and
submits the best. Words that begin with `+` are what else it does.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

from mcp import Client, StdioServerParameters

LIVES = Path("lives.txt")


async def call(client: Client, tool: str, **arguments: object) -> dict[str, object] | str:
    """What the tool answers; a text where it refuses."""
    result = await client.call_tool(tool, arguments)
    return result.content[0].text if result.is_error else result.structured_content


def hang(*, really: bool) -> None:
    """For ever, in the first life of a brief's agent."""
    if really and LIVES.read_text() == ".":
        print("hangs", flush=True)
        time.sleep(3600)


async def work(server: list[str], kernels: list[str], do: Collection[str] = ()) -> None:
    """Judges the files `kernels` with the tools of the server that the words `server` start."""
    LIVES.write_text(LIVES.read_text() + "." if LIVES.exists() else ".")
    parameters = StdioServerParameters(command=server[0], args=server[1:], env=dict(os.environ))
    async with Client(parameters) as client:
        for number, kernel in enumerate(kernels):
            judged = await call(client, "evaluate", kernel=Path(kernel).read_text(), note=f"kernel {number}")
            print("evaluated:", judged if isinstance(judged, str) else judged["outcome"], flush=True)
        if "+profiles" in do:
            for arguments in ({}, {"candidate": "c000001-1", "against": "c000001-2"}, {"candidate": "c9"}):
                told = await call(client, "profile", **arguments)
                print("profiled:", told if isinstance(told, str) else told["text"], flush=True)
        hang(really="+first-hangs-before" in do and Path.cwd().name == "c000001")
        print("submitted:", await call(client, "submit"), flush=True)
        hang(really="+hangs-after" in do)


if __name__ == "__main__":
    print("task:", sys.stdin.readline().strip(), flush=True)
    do = [word for word in sys.argv[1:] if word.startswith("+")]
    if "+spends" in do:
        usage = {"input_tokens": 1000, "output_tokens": 50}
        told = {"type": "result", "num_turns": 3, "total_cost_usd": 0.25, "usage": usage}
        print(json.dumps(told), flush=True)
    entry = json.loads(Path(".mcp.json").read_text())["mcpServers"]["kbopt"]
    words = [word for word in sys.argv[1:] if word not in do]
    asyncio.run(work([entry["command"], *entry["args"]], words, do))
