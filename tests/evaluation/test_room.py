"""Who is blamed where the device has no room left for the check of a candidate."""

from types import SimpleNamespace

import pytest
import torch

from kbopt.core.outcomes import Crashed
from kbopt.evaluation.judge.judgement import Judgement
from kbopt.evaluation.judge.task_code import TaskTooLarge
from kbopt.evaluation.server.timeline import Judged
from kbopt.evaluation.transport.cuda_api import CudaError, check

GIB = 2**30


def judgement(*, free_before: float, free_now: float) -> Judgement:
    found = object.__new__(Judgement)
    found._where = ""
    found._free_bytes = int(free_before * GIB)
    found._reference = SimpleNamespace(device=torch.device("cuda"), free_bytes=int(free_now * GIB))  # type: ignore[assignment]
    return found


def test_one_that_took_much_is_tried_again_where_other_tasks_may_have_held_the_rest():
    outcome = judgement(free_before=40, free_now=20)._without_memory(torch.OutOfMemoryError("CUDA"))

    assert isinstance(outcome, Crashed)
    assert "20.0 GiB" in outcome.reason
    assert Judged(outcome=outcome, log="", frames="").lacked_memory


def test_one_that_took_little_is_not_to_blame():
    with pytest.raises(TaskTooLarge, match="do not fit beside"):
        judgement(free_before=40, free_now=39)._without_memory(torch.OutOfMemoryError("CUDA"))


def test_a_call_of_cuda_says_in_words_that_memory_ran_out():
    with pytest.raises(CudaError, match="cuMemCreate of 7 bytes failed with CUDA error 2: out of memory"):
        check(2, "cuMemCreate of 7 bytes")
    with pytest.raises(CudaError, match=r"error 700$"):
        check(700, "cuMemCreate of 7 bytes")
