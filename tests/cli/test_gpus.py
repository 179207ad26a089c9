"""How many GPUs of this machine share the work."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kbopt.cli.options.backend import backend_options
from kbopt.cli.parsed import backend_config
from kbopt.cli.values import GpuCount
from kbopt.compose.checks import check_gpus
from kbopt.config import ALL_GPUS, BackendConfig, device_kind, num_gpus
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


@click.command()
@click.option("--address")
@backend_options
def asked(address: str | None, **given: Any) -> None:
    """The devices that the options come to."""
    config = backend_config(given)
    click.echo(f"{config.gpus} {config.device} {device_kind(config)}")


def come_to(*words: str) -> str:
    result = CliRunner().invoke(asked, words)
    return result.output.strip() or str(result.exception)


@pytest.mark.usefixtures("two_gpus")
def test_all_is_as_many_as_there_are_here() -> None:
    assert come_to("--gpus", "all") == "2 auto cuda"
    assert come_to("--gpus", "7") == "7 auto cuda"


def test_all_of_a_machine_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "this machine has to have an NVIDIA GPU" in come_to("--gpus", "all")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "it is for --backend local" in come_to("--gpus", "all", "--backend", "modal")


def test_on_a_cluster_the_evaluators_machine_counts_and_all_take_one_kind_of_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert come_to("--address", "auto", "--gpus", "all") == f"{ALL_GPUS} cuda cuda"
    assert come_to("--address", "auto", "--gpus", "2") == "2 cuda cuda"
    assert come_to("--address", "auto") == "1 cpu cpu"
    assert come_to("--address", "auto", "--device", "cuda") == "1 cuda cuda"
    assert come_to("--address", "auto", "--backend", "spool") == "1 auto cuda"
    check_gpus(BackendConfig(gpus=ALL_GPUS, device="cuda"), on_this_machine=False)
    with pytest.raises(UserError, match="--gpus all and --device cpu: the devices are cuda:0 to the last"):
        check_gpus(BackendConfig(gpus=ALL_GPUS, device="cpu"), on_this_machine=False)


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
