"""A rollout of the released `verifiers`: its taskset, its interception of the model, its score."""

from __future__ import annotations

from pathlib import Path

import pytest
import verifiers.v1 as vf

from kbopt.simulated.kernels import to_source
from tests.support.agents import SIMULATED, TOKEN, http_server
from tests.support.openai_server import Answer, OpenAIServer, Script

pytestmark = pytest.mark.slow


async def test_the_reward_of_a_rollout_is_the_speedup_that_the_server_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBOPT_TOKEN", TOKEN)
    monkeypatch.setenv("NO_KEY", "none")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    answers = (
        Answer(text=f"```python\n{to_source((12,) * 8)}\n```"),
        Answer(text="```python\nclass ModelNew: pass\n```"),
        Answer(text="I cannot."),
    )
    with (
        OpenAIServer(Script(behaviours=answers)) as model,
        http_server(tmp_path, *SIMULATED, what="serve") as (_, url),
    ):
        config = vf.SingleAgentEnvConfig.model_validate(
            {
                "taskset": {"id": "kernel_environment", "task": {"url": url}},
                "agent": {"runtime": {"type": "subprocess"}},
            }
        )
        env = vf.SingleAgentEnv(config)
        client = vf.EvalClientConfig(base_url=model.url, api_key_var="NO_KEY")
        context = vf.ModelContext(client=client, model="scripted", sampling=vf.SamplingConfig())
        tasks = list(env.taskset)
        assert [task.data.name for task in tasks] == ["sim/smooth", "sim/rugged"]
        traces = []
        async with env.serving():
            for slot in env.slots(tasks[0], 3):
                episode = await env.run_slot(slot, context)
                assert (episode.errors, [trace.errors for trace in episode.traces]) == ([], [[]])
                traces += episode.traces
    assert traces[0].reward > 1.0
    assert [trace.reward for trace in traces[1:]] == [0.0, 0.0]
    assert [trace.metrics["measured"] for trace in traces] == [1.0, 0.0, 0.0]
    assert len(list(tmp_path.glob("*/journal.sqlite"))) == 1
