from __future__ import annotations

import ast
import asyncio
import subprocess
import sys

import modal
import pytest

from kbopt.backends import modal_app
from kbopt.backends.modal_client import app_name, deploy, ensure_deployed, stop
from kbopt.backends.modal_deploy import stop_app, warm_seconds
from kbopt.backends.modal_outputs import read_output
from kbopt.core.errors import InfraError, UserError
from tests.support.modal_plane import CHECKOUT

FIRST_DEPLOYMENT = """
from kbopt.backends.modal_client import ensure_deployed
print(ensure_deployed(warm_minutes=7))
"""


@pytest.mark.parametrize(("minutes", "seconds"), [(2 / 60, 2), (10, 600), (0.5, 30), (60, 3600)])
def test_warm_minutes_become_seconds(minutes, seconds):
    assert warm_seconds(minutes) == seconds


@pytest.mark.parametrize("minutes", [0, 1 / 60, 60.1, -5])
def test_warm_minutes_outside_modals_range_are_refused(minutes):
    with pytest.raises(UserError, match="Modal allows 2 s to 60 minutes"):
        warm_seconds(minutes)


def test_another_warm_time_is_another_app():
    assert app_name(10) == app_name()
    assert app_name(10) != app_name(11)


def test_the_image_has_the_packages_of_the_languages_that_are_named(monkeypatch):
    monkeypatch.delenv(modal_app.LANGUAGES_VARIABLE, raising=False)
    plain = app_name()
    assert modal_app.requirements() == ()

    monkeypatch.setenv(modal_app.LANGUAGES_VARIABLE, "tilelang, cutedsl")

    names = [requirement.partition("==")[0] for requirement in modal_app.requirements()]
    assert names == ["nvidia-cutlass-dsl", "apache-tvm-ffi", "tilelang"]
    assert app_name() != plain
    monkeypatch.setenv(modal_app.LANGUAGES_VARIABLE, "tilelnag")
    with pytest.raises(UserError, match=r"'tilelnag'\. Allowed, split by commas: cutedsl, cutlass, tilelang"):
        app_name()


def test_two_simultaneous_first_deployments_are_one(plane, driver):
    before = plane.counters()["deployments"]
    drivers = [driver(FIRST_DEPLOYMENT) for _ in range(2)]
    names = {process.communicate(timeout=60)[0] for process in drivers}
    assert [process.returncode for process in drivers] == [0, 0]
    assert names == {f"{app_name(7)}\n"}
    assert plane.counters()["deployments"] == before + 1


def test_the_container_gets_the_evaluator_and_nothing_else_of_kbopt(plane):
    ensure_deployed()
    files = [name for name in plane.mounted_files() if name.startswith("/root/kbopt/")]
    folders = {name.removeprefix("/root/kbopt/").partition("/")[0] for name in files}
    assert folders == {"__init__.py", "backends", "core", "evaluation", "leanbuild"}
    backends = {name.rpartition("/")[2] for name in files if "/backends/" in name}
    assert backends == {"__init__.py", "modal_app.py", "modal_container.py", "modal_wire.py"}


def test_the_build_is_shown_and_a_second_look_up_deploys_nothing(plane):
    lines: list[str] = []
    name = ensure_deployed(warm_minutes=8, on_output=lines.append)
    assert any("App deployed" in line for line in lines)
    lines.clear()
    assert ensure_deployed(warm_minutes=8, on_output=lines.append) == name
    assert lines == []


def test_a_stopped_app_is_deployed_again(plane):
    name = deploy(warm_minutes=9)
    assert stop(warm_minutes=9)
    assert not stop(warm_minutes=9)
    assert ensure_deployed(warm_minutes=9) == name
    assert stop(warm_minutes=9)


def test_a_deployment_that_fails_shows_what_modal_said(plane, monkeypatch):
    monkeypatch.setenv("MODAL_IMAGE_BUILDER_VERSION", "1999.01")
    with pytest.raises(InfraError, match=r"deploying kbopt-\w+ failed: `modal deploy .*(?s:.*)1999\.01"):
        deploy(warm_minutes=6)


async def test_modals_own_command_line_deploys_the_image_and_the_class_as_defined(plane):
    command = [sys.executable, "-m", "modal", "deploy", "-m", "kbopt.backends.modal_app", "--name", "by-hand"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployed = plane.deployed("by-hand")
    image = deployed["image"]
    assert image[0] == "FROM nvidia/cuda:12.8.1-devel-ubuntu24.04"
    assert "RUN apt-get install -y build-essential" in image
    (installed,) = (line for line in image if "pip install" in line)
    assert installed.split()[-4:] == ["ninja==1.13.0", "numpy==2.3.4", "torch==2.9.0", "triton==3.5.0"]
    assert "ENV MODAL_PAYLOAD_FORMAT=cbor" in image
    function = deployed["function"]
    assert function["autoscaler_settings"] == {"max_containers": 1, "scaledown_window": 600}
    assert function["max_concurrent_inputs"] == 64
    assert function["resources"] == {"milli_cpu": 8000, "memory_mb": 32 * 1024, "gpu_config": {}}
    assert function["block_network"]
    assert function["untrusted"]  # restrict_modal_access
    assert "retries" not in function["retry_policy"]
    assert set(function["method_definitions"]) == {"run_batch", "read_page", "describe", "retire"}

    container = modal.Cls.from_name("by-hand", "Evaluator").with_options(gpu="L4")(lane="by hand")
    call = await container.describe.spawn.aio({"owner": "a user"})
    head = (await read_output(call, 60.0))["head"]
    assert (head["starter"], head["failure"]) == ("a user", "")
    await stop_app("by-hand")


def test_the_container_imports_nothing_that_its_image_lacks():
    ours = [path for path in modal_app.PACKAGE.rglob("*.py") if modal_app.ships(path)]
    assert len(ours) > 30
    nodes = [node for path in ours for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    # TileLang is imported where the candidate did so before.
    assert packages - {"tilelang"} <= {"kbopt", "modal", "numpy", "torch", "triton"}
