"""A task that a CPU judges in about a second, and candidates for it: good, wrong and hostile.

A wrong answer is the one verdict that a busy machine cannot change, so tests of the transport use it.
"""

from __future__ import annotations

from kbopt.core.evaluations import EvalRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task

TASK = Task(
    name="quick/affine",
    source="""
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2.0 + 1.0


def get_inputs():
    return [torch.randn(256, 256)]


def get_init_inputs():
    return []
""",
)

PROTOCOL = EvalProtocol(trials=2, timed=10, timeout_s=5.0, compile_timeout_s=20.0)

TEMPLATE = """
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        {body}
"""

GOOD = TEMPLATE.format(body="return torch.add(x * 2.0, 1.0)")
WRONG = TEMPLATE.format(body="return x * 3.0 + 1.0")
SYNTAX_ERROR = "class ModelNew(:\n"
HANGS = TEMPLATE.format(body="while True: pass")
SLOW = TEMPLATE.format(body="import time; time.sleep(0.4); return x * 3.0 + 1.0")
KILLS_ITS_GROUP = TEMPLATE.format(body="import os, signal; os.killpg(0, signal.SIGKILL)")


def request(source: str = GOOD, *, repeat: int = 0, protocol: EvalProtocol = PROTOCOL) -> EvalRequest:
    return EvalRequest(task=TASK, source=source, protocol=protocol, repeat=repeat)


def wrong(name: str) -> str:
    """A candidate with a wrong answer whose source nobody else has."""
    return f"{WRONG}\n# {name}\n"


def good(name: str) -> str:
    """A good candidate whose source nobody else has."""
    return f"{GOOD}\n# {name}\n"


def slow(name: str) -> str:
    """As `wrong`, but it takes a while."""
    return f"{SLOW}\n# {name}\n"
