"""How many sources are built at once."""

import dataclasses
import os

import pytest

from kbopt.evaluation import building
from kbopt.evaluation.compile.toolchain import Toolchain
from kbopt.evaluation.devices import Device


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
