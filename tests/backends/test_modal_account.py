from __future__ import annotations

import pytest

from kbopt.backends.modal_account import GPU_NAMES, check_gpu, other_gpus
from kbopt.core.errors import UserError

REPORT = """
import asyncio
from kbopt.backends.modal_account import check_token, connect
from kbopt.core.errors import InfraError, UserError
try:
    check_token()
    asyncio.run(connect(timeout_s=2.0))
except (UserError, InfraError) as error:
    print(type(error).__name__, error)
else:
    print("connected")
"""


def test_gpu_names_are_taken_in_any_case_and_given_back_as_modal_spells_them():
    assert [check_gpu(name) for name in ("l40s", "A100-80GB", "h100!")] == ["L40S", "A100-80GB", "H100!"]


@pytest.mark.parametrize("name", ["L400S", "A100-90GB", "H100:2", ""])
def test_an_unknown_gpu_is_answered_with_the_allowed_names(name):
    with pytest.raises(UserError, match=r"unknown GPU type .*Allowed: A10, .*T4"):
        check_gpu(name)


def test_a_misspelt_gpu_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean L40S"):
        check_gpu("L40X")


def test_gpus_to_try_are_the_nearest_in_price_and_really_other_types():
    assert other_gpus("L40S") == ("A100", "A10", "A100-40GB")
    assert other_gpus("H100!") == ("H200", "RTX-PRO-6000", "B200")
    assert all(gpu not in other_gpus(gpu) for gpu in GPU_NAMES)


def test_a_good_token_connects(driver):
    assert driver(REPORT).communicate(timeout=30)[0] == "connected\n"


def test_an_unreachable_server_is_given_up_within_our_own_deadline(driver):
    output, _ = driver(REPORT, MODAL_SERVER_URL="http://127.0.0.1:9").communicate(
        timeout=30
    )  # the SDK alone takes 56 s
    assert output.startswith("InfraError Modal did not answer within 2 s at http://127.0.0.1:9")
