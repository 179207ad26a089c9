"""How many sources are built at once, and which builds are one."""

import dataclasses
import os
from contextlib import closing
from pathlib import Path

import pytest

from kbopt.core.types import EvalProtocol, EvalRequest, Precision, Task
from kbopt.evaluation import building
from kbopt.evaluation.building import Builder, Built
from kbopt.evaluation.children import ZygoteHandle
from kbopt.evaluation.compile.toolchain import Toolchain, detect
from kbopt.evaluation.devices import Device
from kbopt.evaluation.sandbox import Limits, SandboxConfig, scrubbed
from tests.evaluation.conftest import ELEMENTWISE


@pytest.fixture
def toolchain() -> Toolchain:
    return Toolchain(**{field.name: "" for field in dataclasses.fields(Toolchain)})


@pytest.mark.parametrize(
    ("device", "cores", "free_gib", "number"),
    [
        ("cuda:0", 16, 128, 8),  # Two compilers each.
        ("cuda:0", 16, 13, 4),
        ("cuda:0", 1, 128, 1),
        ("cpu", 2, 24, 2),
        ("cpu", 8, 2, 1),
    ],
)
def test_builds_keep_the_cores_at_work_within_free_memory(
    device: str,
    cores: int,
    free_gib: int,
    number: int,
    toolchain: Toolchain,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    sizes = {"SC_PAGE_SIZE": 4096, "SC_AVPHYS_PAGES": free_gib * 2**30 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)

    found = building.num_builds_at_once(Device(torch=device, name="", hardware="", toolchain=toolchain))

    assert found == number


SOURCE = """
import torch

class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2 + x
"""


def test_what_is_compiled_for_the_types_it_is_given_is_built_for_each_precision(tmp_path: Path):
    """The GPU need not be there."""
    device = Device(torch="cuda:0", name="", hardware="", toolchain=detect(arch="9.0"))
    with closing(ZygoteHandle(tmp_path, os.environ, prepare_cuda=False)) as zygote:

        def sandbox(built: Built) -> SandboxConfig:
            return SandboxConfig(
                limits=Limits(memory_bytes=2**33, address_space=False),
                environ=scrubbed(os.environ),
                scratch_fallback=str(tmp_path / Path(built.folder).name),
                serial=1,
                build=built.folder,
                build_writable=True,
            )

        builder = Builder(zygote, tmp_path / "builds", device, sandbox)

        def folder(source: str, precision: Precision) -> str:
            request = EvalRequest(
                task=Task(name="t", source=ELEMENTWISE),
                source=source,
                protocol=EvalProtocol(precision=precision),
            )
            built = builder.build(request)
            assert isinstance(built, Built), built
            return built.folder

        launched = SOURCE + "# triton"
        assert folder(launched, "fp32") == folder(launched, "fp32") != folder(launched, "bf16")
        assert folder(SOURCE, "fp32") == folder(SOURCE, "bf16")
