from dataclasses import replace
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest, Result, Seconds
from kbopt.core.outcomes import WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.store.cache import EvaluationCache, normalised, request_key

REQUEST = EvalRequest(task=Task(name="t", source="a = 1"), source="x = 1\n", protocol=EvalProtocol())
RESULT = Result(
    outcome=WrongAnswer(reason="off by one"),
    feedback="f",
    device="cpu",
    protocol="p",
    boot="b",
    seconds=Seconds(),
    device_s=0.5,
)


def test_comments_and_formatting_do_not_change_the_key() -> None:
    other = replace(REQUEST, source="# a comment\nx   =   1")
    assert request_key(other, "cpu") == request_key(REQUEST, "cpu")


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, source="x = 2"),
        replace(REQUEST, task=Task(name="t", source="a = 2")),
        replace(REQUEST, protocol=EvalProtocol(precision="fp16")),
        replace(REQUEST, repeat=1),
        replace(REQUEST, kernelbench=True),
        replace(REQUEST, baselines=True),
    ],
)
def test_what_changes_the_measurement_changes_the_key(other: EvalRequest) -> None:
    assert request_key(other, "cpu") != request_key(REQUEST, "cpu")


def test_the_name_of_a_task_is_not_part_of_the_key() -> None:
    renamed = replace(REQUEST, task=Task(name="other", source="a = 1"))
    assert request_key(renamed, "cpu") == request_key(REQUEST, "cpu")
    assert request_key(REQUEST, "cpu") != request_key(REQUEST, "NVIDIA H200")


def test_a_source_that_does_not_parse_is_its_own_normal_form() -> None:
    assert normalised("def (") == "def ("
    assert normalised("\0") == "\0"


def test_the_first_result_under_a_key_stays(tmp_path: Path) -> None:
    cache = EvaluationCache(tmp_path / "cache.sqlite")
    cache.put({"k": RESULT})
    cache.put({"k": replace(RESULT, feedback="later"), "l": RESULT})
    assert cache.get("k") == RESULT
    assert cache.get("absent") is None
    assert len(cache) == 2
    cache.close()


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    one, two = EvaluationCache(tmp_path / "c.sqlite"), EvaluationCache(tmp_path / "c.sqlite")
    one.put({"k": RESULT})
    assert two.get("k") == RESULT
    one.close()
    two.close()


def test_a_cache_that_cannot_be_used_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("no database, but as long as a header of one would have to be" * 50)
    with pytest.raises(UserError, match="as the evaluation cache"):
        EvaluationCache(tmp_path / "c.sqlite")
