"""Which of a machine's GPUs candidates do not get to see."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from kbopt.core import codec
from kbopt.evaluation.messages import Build, Survey, Surveyed
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig, scrubbed
from kbopt.evaluation.server.devices import gpu_files, other_gpus
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


def test_a_hidden_file_cannot_be_opened_in_a_sandbox_and_can_outside(tmp_path: Path):
    with closing(ForkServerHandle(tmp_path, os.environ, prepare_cuda=False)) as fork_server:
        config = SandboxConfig(
            memory_bytes=2**32,
            environ=scrubbed(os.environ),
            scratch_fallback=str(tmp_path / "scratch"),
            serial=1,
            hidden=("/dev/full",),
        )
        with closing(Child(fork_server, "build", config)) as child:
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
            channel.send(codec.encode(job))
            raised = channel.receive(60)["raised"]

    has_mounts = "mounts" in fork_server.isolation
    seen = json.loads(raised["text"])
    assert seen["/dev/zero"] == "open"
    assert seen["/dev/full"] == ("PermissionError" if has_mounts else "open")
    assert "nothing" not in seen["left"]
    assert os.access("/dev/full", os.R_OK)


def test_trusted_processes_get_what_is_set_in_their_environment(tmp_path: Path):
    with closing(ForkServerHandle(tmp_path, os.environ, prepare_cuda=False)) as fork_server:
        fork_server.set_environment({"CXX": "a-compiler-that-is-not-there"})
        channel, _ = fork_server.spawn_trusted("survey")
        with closing(channel):
            channel.send(codec.encode(Survey(device="cpu")))
            answer = codec.decode(Surveyed, channel.receive(60))

    assert answer.toolchain.cxx == ""
    assert (answer.cuda, answer.bus, answer.uuid) == ((), "", "")
