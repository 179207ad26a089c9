"""Which devices and compilers are found, and which of a machine's GPUs candidates do not get to see."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.evaluations import EvalRequest
from kbopt.core.protocol import EvalProtocol
from kbopt.core.task import Task
from kbopt.evaluation.messages import Build, Raised
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig, scrubbed
from kbopt.evaluation.server.devices import find_device, gpu_files, other_gpus
from kbopt.evaluation.server.judge_handle import JudgeHandle
from kbopt.evaluation.transport.channel import Channel

BUS = "0000:3b:00.0"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """What the driver says of two GPUs whose order is not that of their addresses."""
    for bus, minor in ((BUS, 1), ("0000:86:00.0", 0)):
        folder = tmp_path / "driver" / bus
        folder.mkdir(parents=True)
        text = f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 107\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n"
        (folder / "information").write_text(text)
    return tmp_path / "driver"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    (folder / "nvidia-caps").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (folder / name).touch()
    return folder


def test_the_others_are_all_files_of_gpus_but_its_own(driver: Path, files: Path):
    assert other_gpus(BUS, driver, files) == (f"{files}/nvidia0", f"{files}/nvidia10")


def test_a_machine_has_as_many_gpus_as_files_with_a_number(files: Path, tmp_path: Path):
    assert [path.name for path in gpu_files(files)] == ["nvidia0", "nvidia1", "nvidia10"]
    assert gpu_files(tmp_path) == []


def test_alone_it_has_no_others(driver: Path, files: Path):
    for name in ("nvidia0", "nvidia10"):
        (files / name).unlink()

    assert other_gpus(BUS, driver, files) == ()


@pytest.mark.parametrize("bus", ["0000:3c:00.0", ""])
def test_where_its_own_file_cannot_be_told_none_is_hidden(driver: Path, files: Path, bus: str):
    assert other_gpus(bus, driver, files) == ()


@pytest.mark.parametrize("text", ["Model: NVIDIA H200\n", "Device Minor: 7\n"])
def test_neither_where_the_driver_says_something_else(driver: Path, files: Path, text: str):
    (driver / BUS / "information").write_text(text)

    assert other_gpus(BUS, driver, files) == ()


LOOKS = """
import json, os
seen = {}
for file in ("/dev/full", "/dev/zero"):
    try:
        os.close(os.open(file, os.O_RDWR))
        seen[file] = "open"
    except OSError as error:
        seen[file] = type(error).__name__
seen["left"] = os.listdir("/tmp")
raise ValueError(json.dumps(seen))
"""


def config(folder: Path, hidden: tuple[str, ...] = ()) -> SandboxConfig:
    return SandboxConfig(
        memory_bytes=2**32,
        environ=scrubbed(os.environ),
        scratch_fallback=str(folder / "scratch"),
        serial=1,
        hidden=hidden,
    )


def test_a_hidden_file_cannot_be_opened_in_a_sandbox_and_can_outside(tmp_path: Path):
    with (
        closing(ForkServerHandle(tmp_path, os.environ)) as fork_server,
        closing(Child(fork_server, "build", config(tmp_path, hidden=("/dev/full",)))) as child,
    ):
        channel = Channel(child.data)
        job = Build(
            source=LOOKS,
            setup="",
            task_source="",
            device="cpu",
            precision="fp32",
            backward=False,
            arch="",
        )
        channel.send(job)
        raised: Raised = channel.receive(Raised, 60)

    has_mounts = "mounts" in fork_server.isolation
    seen = json.loads(raised.text)
    assert seen["/dev/zero"] == "open"
    assert seen["/dev/full"] == ("PermissionError" if has_mounts else "open")
    assert "nothing" not in seen["left"]
    assert os.access("/dev/full", os.R_OK)


def test_trusted_processes_get_what_is_set_in_their_environment(tmp_path: Path):
    task = Task(name="t", source="import os\nraise ValueError(os.environ['MARK'])")
    request = EvalRequest(task=task, source="", protocol=EvalProtocol())
    with closing(ForkServerHandle(tmp_path, os.environ)) as fork_server:
        device = find_device("cpu", fork_server)
        fork_server.set_environment({"MARK": "set later"})
        with (
            closing(JudgeHandle(fork_server, request, device, config(tmp_path))) as judge,
            pytest.raises(UserError, match="set later"),
        ):
            judge.admit()


def test_the_survey_tells_of_devices_and_compilers(tmp_path: Path):
    environ = {**os.environ, "CXX": "a-compiler-that-is-not-there"}
    with closing(ForkServerHandle(tmp_path, environ)) as fork_server:
        device = find_device("cpu", fork_server)

    assert device.toolchain.cxx == ""
    assert (device.torch, device.hardware, device.uuid, device.others) == ("cpu", "cpu", "", ())


def test_a_device_that_is_not_there_is_named_with_what_to_use(tmp_path: Path):
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with (
        closing(ForkServerHandle(tmp_path, environ, device="cuda:3")) as fork_server,
        pytest.raises(UserError, match=r"'cuda:3' was asked for.*use --device cpu"),
    ):
        find_device("cuda:3", fork_server)
