"""An agent without a model: a real process that speaks real MCP, by the official SDK.

`python scripted_agent.py KERNEL...` has each kernel judged in turn, by the server that `.mcp.json` names, and
submits the best. Words that begin with `+` are what else it does, good or bad.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from mcp import Client, StdioServerParameters

DO = {word for word in sys.argv[1:] if word.startswith("+")}
KERNELS = [Path(word).read_text() for word in sys.argv[1:] if not word.startswith("+")]


async def call(client: Client, tool: str, **arguments: object) -> dict[str, object] | str:
    """What the tool answers; a text where it refuses."""
    result = await client.call_tool(tool, arguments)
    return result.content[0].text if result.is_error else result.structured_content


async def work(client: Client) -> None:
    for number, kernel in enumerate(KERNELS):
        judged = await call(client, "evaluate", kernel=kernel, note=f"kernel {number}")
        print(f"evaluated: {judged if isinstance(judged, str) else judged['outcome']}", flush=True)
        if "+marks" in DO:
            Path(f"mark_{number}.txt").write_text(kernel)
    if "+hangs" in DO:
        print("hangs", flush=True)
        time.sleep(3600)
    if "+submits-nothing" not in DO:
        print("submitted:", await call(client, "submit"), flush=True)
    if "+hangs-after" in DO:
        print("hangs", flush=True)
        time.sleep(3600)


async def main() -> None:
    print("task begins:", sys.stdin.readline().strip(), flush=True)
    if "+spends" in DO:
        usage = {"input_tokens": 1000, "output_tokens": 50}
        print(
            json.dumps({"type": "result", "num_turns": 3, "total_cost_usd": 0.25, "usage": usage}), flush=True
        )
    if "+never-asks" in DO:
        return
    server = json.loads(Path(".mcp.json").read_text())["mcpServers"]["kbopt"]
    parameters = StdioServerParameters(command=server["command"], args=server["args"], env=dict(os.environ))
    async with Client(parameters) as client:
        await work(client)


asyncio.run(main())
