"""A `verifiers` environment whose reward is the speedup that a `kbopt serve` measured.

Rollouts run in many processes and on other machines than the device, so they ask over HTTP, and the server
keeps the device to one. A module of yours makes the environment, here `kernels.py`:

    from kbopt.adapters.verifiers import KernelTaskset

    __all__ = ["KernelTaskset"]

Then `vf-eval kernels` and trainers find it by that name. Its tasks are those that the server offers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import httpx
import verifiers.v1 as vf

from kbopt.agents.answers import Evaluation, Tasks
from kbopt.agents.jobs import Evaluations, Job
from kbopt.agents.problems import Problem
from kbopt.core.errors import InfraError
from kbopt.library import kernel_source
from kbopt.proposers.answers import Malformed

TIMEOUT_S = 90.0
"""Seconds for one request: the server answers within `WAIT_S`, and reads a body before that."""

WAIT_S = 50
"""Seconds that the server is asked to wait for a verdict before it says that there is none yet; its limit."""

PROMPT = """Make this PyTorch model faster. Answer with one fenced block of Python that defines
`class ModelNew(torch.nn.Module)`, with the constructor and the forward of `Model`.

```python
{source}
```"""


class KernelData(vf.TaskData):
    """One task of the server, by its name there."""

    task: str


class KernelTaskConfig(vf.TaskConfig):
    """Where the judge is. `token_env` names the variable that holds its token."""

    url: str = "http://127.0.0.1:8000/v1"
    token_env: str = "KBOPT_TOKEN"
    session: str = "verifiers"

    def headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {os.environ.get(self.token_env, '')}",
            "Kbopt-Session": self.session,
            "User-Agent": "verifiers",
        }


class KernelTask(vf.Task[KernelData, vf.State, KernelTaskConfig]):
    """A kernel for one task. A rollout whose kernel could not be judged has an error and no reward."""

    @vf.reward
    async def speedup(self, trace: vf.Trace) -> float:
        """The speedup over the reference, 0.0 for an answer that does not work. Records `measured`."""
        source = kernel_source(trace.last_reply)
        found = None if isinstance(source, Malformed) else await _verdict(self.config, self.data.task, source)
        trace.record_metric("measured", float(found is not None and found.speedup is not None))
        return (found.speedup or 0.0) if found else 0.0


class KernelTasksetConfig(vf.TasksetConfig):
    """The taskset's, with the judge under `task`."""

    task: KernelTaskConfig = KernelTaskConfig()


class KernelTaskset(vf.Taskset[KernelTask, KernelTasksetConfig]):
    """The tasks that the server offers."""

    def load(self) -> Iterable[KernelTask]:
        config = self.config.task
        with httpx.Client(base_url=config.url, headers=config.headers(), timeout=TIMEOUT_S) as client:
            for row in Tasks.model_validate_json(_text(client.get("/tasks"))).tasks:
                one = Tasks.model_validate_json(_text(client.get("/tasks", params={"name": row.name})))
                prompt = PROMPT.format(source=one.tasks[0].source)
                yield KernelTask(KernelData(name=row.name, task=row.name, prompt=prompt), config)


async def _verdict(config: KernelTaskConfig, task: str, kernel: str) -> Evaluation | None:
    """The verdict, None for a kernel that is not judged. Raises InfraError where the judge has none."""
    wait = {"wait_s": WAIT_S}
    body = {"task": task, "kernels": [{"kernel": kernel}]}
    async with httpx.AsyncClient(base_url=config.url, headers=config.headers(), timeout=TIMEOUT_S) as client:
        job = Job.model_validate_json(_text(await client.post("/evaluate", params=wait, json=body)))
        while job.state == "running":
            job = Job.model_validate_json(_text(await client.get(f"/jobs/{job.job}", params=wait)))
    if not isinstance(job.answer, Evaluations):
        raise InfraError(f"the judge at {config.url} gave no verdicts but {job.answer!r}")
    (found,) = job.answer.evaluations
    if isinstance(found, Evaluation):
        return found
    if found.error == "refused" and "budget" not in found.message:
        return None
    raise InfraError(found.message)


def _text(answer: httpx.Response) -> str:
    """The body of an answer. Raises InfraError with the server's reason where it is a problem."""
    if answer.status_code >= 400:
        problem = Problem.model_validate_json(answer.text)
        raise InfraError(f"the judge at {answer.url} refused: {problem.message}")
    return answer.text
