"""A session's budget in dollars, with a device that costs rent, and what is said of one that costs none."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest

from kbopt.agents import calls
from kbopt.agents.session import Offer, Session
from kbopt.cluster.evaluator import EvaluationQueue
from kbopt.config import BackendConfig
from kbopt.core.costs import Rent
from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest, Result
from kbopt.core.events import Rented
from kbopt.core.ports import BackendStatus
from kbopt.core.protocol import EvalProtocol
from kbopt.core.settings import Budget
from kbopt.simulated import SimulatedBackend, landscape
from kbopt.store.cache import EvaluationCache
from kbopt.store.journal import JournalReader
from tests.support.agents import SIMULATED, TOKEN, command, simulated
from tests.support.agents import http_server as start


class Rented25Cents(SimulatedBackend):
    """Costs 0.25 dollars a request."""

    num_requests = 0

    async def evaluate(self, requests: Sequence[EvalRequest]) -> list[Result]:
        self.num_requests += len(requests)
        return await super().evaluate(requests)

    async def status(self) -> BackendStatus:
        rent = Rent(gpu="L4", seconds=10.0 * self.num_requests, usd=0.25 * self.num_requests)
        found = await super().status()
        return BackendStatus(
            state=found.state, device=found.device, boot=found.boot, age_s=found.age_s, rent=rent
        )


async def test_a_session_spends_its_dollars_over_all_of_its_tasks_and_then_may_submit(tmp_path: Path) -> None:
    names = ("sim/smooth", "sim/rugged")
    offer = Offer(
        tasks={name: lambda name=name: landscape(name).task for name in names},
        backend=BackendConfig(name="simulated"),
        protocol=EvalProtocol(),
        budget=Budget(usd=0.5),
        out=tmp_path,
    )
    queue = EvaluationQueue(Rented25Cents(service_s=0.0), EvaluationCache(Path(":memory:")))
    session = Session(offer, queue)
    assert calls.tasks(session).usd_left == 0.5
    first = await calls.evaluate(session, names[0], simulated(3), proposer="agent:x")
    assert first.usd_left == 0.25
    second = await calls.evaluate(session, names[1], simulated(9), proposer="agent:x")
    assert second.usd_left == calls.history(session).usd_left == 0.0
    for asked in (
        calls.evaluate(session, names[0], simulated(4), proposer="agent:x"),
        calls.profile(session, task=names[0]),
    ):
        with pytest.raises(UserError, match=re.escape("all 0.50 dollars (--max-usd 0.5)")):
            await asked
    done = await calls.submit(session, task=names[0], proposer="agent:x")
    assert done.candidate == "c000001"
    await session.close()
    await queue.close()
    rents = [
        entry.event.rent.usd
        for folder in tmp_path.iterdir()
        for entry in JournalReader(folder / "journal.sqlite").entries()
        if isinstance(entry.event, Rented)
    ]
    assert sum(rents) == 0.25 * 4  # two evaluations; the last measurements are outside of the budget


def test_a_backend_without_a_price_is_said_to_have_none(tmp_path: Path) -> None:
    done = subprocess.run(
        command("mcp", "--out", tmp_path, *SIMULATED, "--max-usd", 5),
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "--max-usd 5 ends no session: --backend simulated evaluates at no cost" in done.stderr
    with start(tmp_path, *SIMULATED, "--max-usd", 5, what="serve") as (_, url):
        assert (
            httpx2.get(f"{url}/tasks", headers={"Authorization": f"Bearer {TOKEN}"}).json()["usd_left"] == 5
        )
