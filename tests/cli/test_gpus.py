"""How many GPUs of this machine share the work."""

from pathlib import Path

import click
import pytest

from kbopt.cli.values import GpuCount
from kbopt.compose.checks import check_gpus
from kbopt.config import BackendConfig, num_gpus
from kbopt.core.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-1")


def test_gpus_are_counted_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert num_gpus(tmp_path) == 2


@pytest.mark.parametrize(
    ("chosen", "number"), [("", 0), ("-1", 0), ("3", 1), ("0, 2", 2), ("GPU-a,GPU-b", 2)]
)
def test_those_that_the_environment_chooses_count(
    chosen: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert num_gpus(tmp_path) == number


@pytest.mark.usefixtures("two_gpus")
def test_all_is_as_many_as_there_are() -> None:
    assert GpuCount().convert("all", None, None) == 2
    assert GpuCount().convert("7", None, None) == 7


@pytest.mark.parametrize("value", ["0", "65", "-1", "1.5", "some", ""])
def test_another_number_is_answered_with_what_is_allowed(value: str) -> None:
    with pytest.raises(click.BadParameter, match="give a number from 1 to 64, or all"):
        GpuCount().convert(value, None, None)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (BackendConfig(gpus=3), "--gpus 3: this machine has 2; give fewer, or --gpus all"),
        (
            BackendConfig(gpus=2, device="cuda:1"),
            "--gpus 2 and --device cuda:1: the devices are cuda:0 to cuda:1",
        ),
        (BackendConfig(gpus=2, device="cpu"), "leave one of the two options out"),
    ],
)
def test_more_than_there_are_and_a_device_by_name_are_refused(config: BackendConfig, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_gpus(config)


@pytest.mark.usefixtures("two_gpus")
def test_as_many_as_there_are_may_be_used_and_one_is_always_allowed() -> None:
    check_gpus(BackendConfig(gpus=2))
    check_gpus(BackendConfig(gpus=1, device="cpu"))
    check_gpus(BackendConfig(gpus=8), on_this_machine=False)
