"""A task that cannot be scored is refused, in words that name the admission test it failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import Measured
from kbopt.evaluation.client import ServiceClient
from tests.adversarial.case import PROTOCOL, load_task
from tests.adversarial.cases import CONTROLS

pytestmark = pytest.mark.slow

REFUSALS = {
    "bad_raises": r"the reference runs.*no such layer",
    "bad_no_tensor": r"returns a tensor",
    "bad_random": r"deterministic",
    "bad_zeros": r"zeros",
    "bad_empty": r"zeros.*of shape \(0, 64\), hold no elements; a size of its inputs is zero",
    "bad_constant": r"constant",
    "bad_nan": r"answer to other inputs",
    "bad_no_inputs": r"answer to other inputs|constant",
    "bad_random_number": r"same form.*shapes or numbers each time",
    "bad_random_shape": r"same form.*shapes or numbers each time",
    "bad_shape_by_values": r"same form.*decide the shape",
    "bad_number_by_values": r"same form.*decide the shape",
}

ANY_SOURCE = CONTROLS[0].source


async def test_each_bad_task_is_refused_by_name_and_the_next_good_one_is_scored(tmp_path: Path) -> None:
    client = ServiceClient(device="cpu", state_dir=tmp_path)
    await client.open()
    try:
        for name, pattern in REFUSALS.items():
            request = EvalRequest(task=load_task(name), source=ANY_SOURCE, protocol=PROTOCOL)
            with pytest.raises(UserError) as refusal:
                await client.evaluate(request)
            assert re.search(pattern, str(refusal.value), re.DOTALL), (name, str(refusal.value))
        result = await client.evaluate(CONTROLS[0].request())
        assert isinstance(result.outcome, Measured)
    finally:
        await client.close()
