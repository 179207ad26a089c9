"""A module as a user of `verifiers` writes it, with a harness that asks the model once, in this process."""

import httpx
import verifiers.v1 as vf

from kbopt.adapters.verifiers import KernelTaskset

__all__ = ["KernelTaskset", "OneAnswer"]


class OneAnswer(vf.Harness[vf.HarnessConfig]):
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data) -> vf.ProgramResult:
        messages = [{"role": "user", "content": data.prompt_text}]
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": messages},
            )
        return vf.ProgramResult(int(answer.status_code != 200), "", answer.text)
