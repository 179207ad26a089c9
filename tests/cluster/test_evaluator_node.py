"""The evaluator on another machine than the head, over ssh between machines of namespaces, with real Ray."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import Machine
from tests.support.ray_machines import MARKS, RESOURCE, RayMachines, wait_until

pytestmark = MARKS

SWEEP = "kbopt sweep --address auto --nodes 2 --tasks quick/matmul --seeds 1 --trials 1 --timed 10"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayMachines]:
    """The head has no GPU. The worker says that it has two, and has none to open either."""
    folder = tmp_path_factory.mktemp("machines")
    with RayMachines(folder, evaluator_env={"CUDA_VISIBLE_DEVICES": "0,1"}) as made:
        made.ray("up", "-y", "--no-restart")
        yield made


def run(cluster: RayMachines, name: str, options: str) -> tuple[int, str, dict[str, set[str]]]:
    """The exit code of a sweep, what it said, and by machine the devices of the services that ran meanwhile,
    with `actor` for an evaluator.
    """
    driver = cluster.start(name, f"{SWEEP} --name {name} --max-evals 2 --backend local {options}")
    seen: dict[str, set[str]] = {"head": set(), "worker": set()}
    while driver.poll() is None:
        for machine in (cluster.head, cluster.worker):
            seen[machine.name] |= services(machine)
        time.sleep(0.05)
    return driver.returncode, cluster.output(name).read_text(), seen


def services(machine: Machine) -> set[str]:
    found = {"actor" for _ in machine.processes("ray::Evaluator")}
    for pid in machine.processes(f"{machine.home}/kbopt/.venv/bin/python\0"):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "kbopt.evaluation" in words and "--device" in words:
            found.add(words[words.index("--device") + 1])
    return found


def test_the_machine_with_the_resource_measures(cluster: RayMachines) -> None:
    code, said, seen = run(cluster, "cpu", "--device cpu")
    assert code == 0, said
    assert "1/1 search" in said
    assert seen == {"head": set(), "worker": {"actor", "cpu"}}
    assert "1/1 search over, 2 evaluations" in cluster.head.shell("kbopt sweep status cpu")


@pytest.mark.patient
@pytest.mark.timeout(900)
def test_searches_wait_for_a_machine_with_the_resource(cluster: RayMachines) -> None:
    driver = cluster.start("lost", f"{SWEEP} --name lost --backend local --device cpu --max-evals 8")
    wait_until(lambda: cluster.total("lost") >= 1, "the worker has measured", timeout_s=400)
    cluster.worker.power_off()
    time.sleep(30.0)  # The head notices within nine.
    measured = cluster.total("lost")
    assert measured < 8
    assert driver.poll() is None, cluster.output("lost").read_text()
    cluster.switch_on("worker")
    cluster.worker.shell(
        f"CUDA_VISIBLE_DEVICES=0,1 ray start {RESOURCE} --address={cluster.head.address}:6379 "
        f"--node-ip-address={cluster.worker.address} --disable-usage-stats"
    )
    assert driver.wait(timeout=400) == 0, cluster.output("lost").read_text()
    assert cluster.total("lost") == 8


def test_all_gpus_are_those_of_the_machine_with_the_resource(cluster: RayMachines) -> None:
    code, said, seen = run(cluster, "gpus", "--gpus all")
    own = seen["worker"] - {"cpu"}  # the former sweep's, until its evaluator is cleared away
    assert (seen["head"], own) == (set(), {"actor", "cuda:0", "cuda:1"}), said
    assert code == 2
    assert "device 'cuda:0' was asked for, and torch finds no CUDA device" in said
