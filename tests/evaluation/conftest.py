"""One evaluation service for all tests of a module, driven from synchronous tests."""

import asyncio
from collections.abc import Iterator

import pytest

from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.client import ServiceClient

ELEMENTWISE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2 + x

def get_inputs():
    return [torch.randn(256, 512)]

def get_init_inputs():
    return []
"""

QUICK = EvalProtocol(trials=2, timed=12, timeout_s=20, compile_timeout_s=20)


class Bench:
    """A service and the loop that it lives on."""

    def __init__(self, runner: asyncio.Runner, client: ServiceClient) -> None:
        self.runner = runner
        self.client = client

    def judge(
        self, source: str, task: str = ELEMENTWISE, protocol: EvalProtocol = QUICK, **asked: bool
    ) -> Result:
        return self.judge_all([source], task, protocol, **asked)[0]

    def judge_all(
        self, sources: list[str], task: str = ELEMENTWISE, protocol: EvalProtocol = QUICK, **asked: bool
    ) -> list[Result]:
        """`asked` are the request's `kernelbench` and `baselines`."""
        of = Task(name="t", source=task)

        async def gather() -> list[Result]:
            return await asyncio.gather(
                *(
                    self.client.evaluate(EvalRequest(task=of, source=source, protocol=protocol, **asked))
                    for source in sources
                )
            )

        return self.runner.run(gather())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        client = ServiceClient(device="cpu", state_dir=tmp_path_factory.mktemp("state"))
        runner.run(client.open())
        yield Bench(runner, client)
        runner.run(client.close())
