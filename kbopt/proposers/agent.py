"""The proposer of a run that an agent made through `kbopt mcp`, once the agent is gone."""

from __future__ import annotations

from kbopt.core.types import Brief, NoProposal


class AbsentAgent:
    """Has no kernel for any brief: `kbopt resume` measures what the agent left, and asks for nothing new."""

    name = "agent"

    async def propose(self, brief: Brief) -> NoProposal:
        """Says so; `brief` was written for an agent that is not there any more."""
        return NoProposal(reason="the agent that asked for this is gone; `kbopt mcp` starts a new session")
