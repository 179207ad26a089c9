"""How many sources are built at once, and which builds are one."""

import dataclasses
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kbopt.core import codec
from kbopt.core.evaluations import EvalRequest
from kbopt.core.outcomes import CompileFailed, Rejected
from kbopt.core.protocol import EvalProtocol, Precision
from kbopt.core.task import Task
from kbopt.evaluation.build import building
from kbopt.evaluation.build.building import Builder, Built
from kbopt.evaluation.messages import BuildDone
from kbopt.evaluation.sandbox.children import ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig, scrubbed
from kbopt.evaluation.server.devices import Device
from kbopt.evaluation.worker.candidate import failure_of
from kbopt.leanbuild import scan
from kbopt.leanbuild.toolchain import Toolchain, detect
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
    with closing(ForkServerHandle(tmp_path, os.environ)) as fork_server:

        def sandbox(built: Built) -> SandboxConfig:
            return SandboxConfig(
                memory_bytes=2**33,
                address_space=False,
                environ=scrubbed(os.environ),
                scratch_fallback=str(tmp_path / Path(built.folder).name),
                serial=1,
                build=built.folder,
                build_writable=True,
            )

        builder = Builder(fork_server, tmp_path / "builds", device, sandbox)

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


IMPORTS = "from torch.utils.cpp_extension import load_inline\n"


@pytest.mark.parametrize(
    ("source", "late"),
    [
        (IMPORTS + "kernel = load_inline(\n    name='f', cpp_sources='')\n", False),
        (IMPORTS + "class ModelNew:\n    def __init__(self):\n        self.f = load_inline('f', '')\n", True),
        (IMPORTS + "def make(): return load_inline('f', '')\n", True),
        (IMPORTS + "make = lambda: load_inline('f', '')\n", True),
        (IMPORTS.replace("\n", " as compiled\n") + "def make():\n    return compiled('f', '')\n", True),
        ("def make():\n    return load_inline('f', '')\n", False),
    ],
)
def test_a_source_that_may_build_after_its_import_is_told_by_its_lines(source: str, late: bool):
    assert building.names_loader_late(source) is late


RAISED = {"type": "Raised", "kind": "RuntimeError", "text": "x", "frames": ""}


@pytest.mark.parametrize(
    ("reply", "outcome", "lasting"),
    [
        (RAISED | {"lasting": True}, CompileFailed, True),
        (RAISED, CompileFailed, False),
        (RAISED | {"lasting": "yes"}, Rejected, False),
        (RAISED | {"kind": 5}, Rejected, False),
        (RAISED | {"text": [["type"]]}, Rejected, False),
        ({"type": "Raised"}, Rejected, False),
        ({"type": "SourceRefused", "reason": "no ModelNew"}, CompileFailed, False),
        ({"type": "SourceRefused", "reason": 10**400}, Rejected, False),
        ({"type": "BuildDone", "whole": "yes"}, Rejected, False),
        ({"type": "Place"}, Rejected, False),
        ({}, Rejected, False),
    ],
)
def test_whatever_a_build_child_says_is_an_outcome(reply: dict[str, Any], outcome: type, lasting: bool):
    ended = building._ended(reply, "log")

    assert isinstance(ended, building.NotBuilt)
    assert (type(ended.outcome), ended.log) == (outcome, "log")
    assert getattr(ended.outcome, "lasting", False) is lasting


@pytest.mark.parametrize("whole", [True, False])
def test_a_build_child_that_came_to_the_end_is_done(whole: bool):
    reply = codec.encode(BuildDone(whole=whole))

    assert building._ended(reply, "log") == building._Done(log="log", whole=whole)


@pytest.mark.parametrize(
    ("log", "blames"),
    [
        ("main.cpp:3:5: error: 'foo' was not declared in this scope", True),
        ('cuda.cu(4): error: identifier "foo" is undefined', True),
        ("main.cpp:1:10: fatal error: foo.h: No such file or directory", False),
        ("a.cpp:1: error: x\ncc1plus: out of memory allocating 65536 bytes", False),
        ("/usr/bin/ld: cannot find -lfoo: error: ld returned 1 exit status", False),
        ("a.cpp: error: error writing to /tmp/x.s: No space left on device", False),
        ("g++: internal compiler error: Killed (program cc1plus)", False),
        ("", False),
    ],
)
def test_a_compiler_blames_the_source_or_what_is_missing_now(log: str, blames: bool):
    assert scan.blames_source(log) is blames


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("No module named 'tilelang'", "\nTileLang is not installed: pip install 'tilelang=="),
        ("No module named 'numby'", None),
    ],
)
def test_a_missing_package_of_a_language_has_a_remedy(error: str, said: str | None):
    raised = failure_of(ModuleNotFoundError(error))

    ended = building._ended(codec.encode(raised), "")

    assert isinstance(ended, building.NotBuilt)
    assert ended.outcome.reason.startswith(f"ModuleNotFoundError: {error}")
    assert (said is not None) == ("pip install" in ended.outcome.reason)
    assert (said or "") in ended.outcome.reason
