"""The shipped cluster file over ssh, and what a sweep survives: machines of namespaces, real Ray.

The tests go in order over one cluster. Two sweeps share its evaluator while parts of it die; the last of
these tests looks at what came of them.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.logged_sweep import MAX_BATCH
from tests.support.ray_machines import EVALUATIONS, MARKS, RayMachines, kill, wait_until

pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayMachines]:
    with RayMachines(tmp_path_factory.mktemp("machines")) as made:
        made.ray("up", "-y", "--no-restart")
        yield made


@pytest.fixture(scope="module")
def two_sweeps(cluster: RayMachines) -> dict[str, subprocess.Popen[bytes]]:
    """Sweeps `a` and `b` on one evaluator, under way."""
    drivers = {name: cluster.drive(name, "--nodes", "2") for name in ("a", "b")}
    cluster.goes_on("a", "b", by=5)
    return drivers


def test_submit_exec_and_rsync_do_what_the_readme_says(cluster: RayMachines, tmp_path: Path) -> None:
    options = "--tasks quick/matmul --algorithms PS_epsNet_Summarizer --seeds 1 --max-evals 2 --name quick"
    options += " --trials 1 --timed 10"
    said = cluster.ray("submit", "experiments/sweep.py", *options.split(), "--backend", "local")
    assert "1/1 search" in said
    assert "quick/matmul" in said
    assert "fast_1.05" in said
    assert "1/1 search over, 2 evaluations" in cluster.ray("exec", "kbopt sweep status quick")
    assert "report.html" in cluster.ray("exec", "kbopt sweep results quick")
    cluster.ray("rsync-down", "~/sweeps/quick/", f"{tmp_path}/quick/")
    (best,) = (tmp_path / "quick").glob("*/best.py")
    assert "class ModelNew" in best.read_text()
    assert (tmp_path / "quick" / "report.html").stat().st_size > 100_000
    job = f"ray job submit -- python kbopt/experiments/sweep.py {options} --backend local"
    assert "1/1 search" in cluster.ray("exec", job)  # the same sweep, of which nothing is left to do


def test_two_sweeps_share_one_evaluator(cluster: RayMachines, two_sweeps: dict) -> None:
    assert len(cluster.actors("evaluator")) == 1
    assert len(cluster.actors("coordinator")) == 2
    # On a busy machine the head's explorers may be first.
    wait_until(lambda: bool(cluster.worker.processes("ray::Explorer")), "the worker has explorers")


def test_actors_have_readable_names_and_the_series_are_exported(
    cluster: RayMachines, two_sweeps: dict
) -> None:
    script = """
import json, re, urllib.request, ray
ray.init(address="auto", namespace="kbopt", log_to_driver=False, logging_level="ERROR")
text = ""
for node in ray.nodes():
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text += urllib.request.urlopen(url, timeout=10).read().decode()
series = sorted(set(re.findall(r"^ray_(kbopt_\\w+)\\{", text, re.M)))
print(json.dumps([sorted(ray.util.list_named_actors()), series]))
"""
    (cluster.head.home / "look.py").write_text(script)
    wanted = {
        *("kbopt_evaluations", "kbopt_queue_length", "kbopt_in_flight", "kbopt_cached"),
        *("kbopt_lease_busy_seconds", "kbopt_cold_starts", "kbopt_best_speedup", "kbopt_proposals"),
        *("kbopt_tokens", "kbopt_usd", "kbopt_staleness"),
    }
    seen: set[str] = set()

    def all_there() -> bool:
        names, series = json.loads(cluster.head.shell("python look.py").splitlines()[-1])
        expected = {"evaluator", "coordinator:a", "coordinator:b", "explorer:a:0", "explorer:a:1"}
        assert expected <= set(names)
        seen.update(series)
        return wanted <= seen

    wait_until(all_there, f"all series are exported: {wanted}", timeout_s=40)


def test_killed_explorers_start_again(cluster: RayMachines, two_sweeps: dict) -> None:
    dead = cluster.actors("explorer")
    kill(dead)
    wait_until(lambda: len(set(cluster.actors("explorer")) - set(dead)) == 4, "four explorers are back")
    cluster.goes_on("a", "b")


def test_a_killed_evaluator_starts_again(cluster: RayMachines, two_sweeps: dict) -> None:
    kill(cluster.actors("evaluator"))
    cluster.goes_on("a", "b")


def test_killed_coordinators_go_on_from_their_journals(cluster: RayMachines, two_sweeps: dict) -> None:
    kill(cluster.actors("coordinator"))
    cluster.goes_on("a", "b")


def test_without_its_driver_a_sweep_goes_on_and_the_same_command_attaches(
    cluster: RayMachines, two_sweeps: dict
) -> None:
    kill(cluster.head.processes("python\0-m\0tests.support.logged_sweep"))
    for driver in two_sweeps.values():
        driver.wait(timeout=30)
    cluster.goes_on("a", "b")
    coordinators = cluster.actors("coordinator")
    two_sweeps.update({name: cluster.drive(name) for name in two_sweeps}, again=cluster.drive("a"))
    other = cluster.drive("a", "--epsilon", "0.5")
    assert other.wait(timeout=60) == 2
    assert "other settings (settings.epsilon: " in cluster.output("a").read_text()
    assert cluster.actors("coordinator") == coordinators


def test_a_stopped_sweep_is_resumed(cluster: RayMachines, two_sweeps: dict) -> None:
    cluster.head.shell("kbopt sweep stop b")
    assert two_sweeps.pop("b").wait(timeout=30) == 0
    assert "go on with: kbopt sweep resume sweeps/b" in cluster.output("b").read_text()
    stopped_at = cluster.total("b")
    cluster.goes_on("a")
    assert cluster.total("b") == stopped_at
    two_sweeps["b"] = cluster.start("b", "kbopt sweep resume b --address auto")
    cluster.goes_on("b")


@pytest.mark.patient
def test_a_partition_costs_no_result(cluster: RayMachines, two_sweeps: dict) -> None:
    cut_off = cluster.worker.processes("ray::Explorer")
    cluster.worker.unplug()
    back_at = time.monotonic() + 20.0
    wait_until(
        lambda: len(cluster.head.processes("ray::Explorer")) == 4, "the worker's explorers run on the head"
    )
    cluster.goes_on("a", "b")
    time.sleep(max(0.0, back_at - time.monotonic()))
    cluster.worker.plug_in()
    wait_until(
        lambda: not set(cut_off) & set(cluster.worker.processes("ray::Explorer")),
        "the explorers that were cut off are gone",
    )
    cluster.goes_on("a", "b")
    count = "import ray; ray.init('auto', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    wait_until(
        lambda: cluster.head.shell(f'python -c "{count}"').split()[-1] == "2",
        "the head has started Ray on the worker again",
        timeout_s=90,
    )


def test_a_worker_is_powered_off_and_another_joins(cluster: RayMachines, two_sweeps: dict) -> None:
    cluster.worker.power_off()
    cluster.goes_on("a", "b")
    cluster.switch_on("worker")
    cluster.worker.shell(
        f"ray start --address={cluster.head.address}:6379 --node-ip-address={cluster.worker.address} "
        "--disable-usage-stats"
    )
    kill(cluster.head.processes("ray::Explorer"))  # Ray spreads those that it starts again
    wait_until(
        lambda: bool(cluster.worker.processes("ray::Explorer")), "explorers on the machine that joined"
    )
    cluster.goes_on("a", "b")


def test_after_all_that_every_search_has_its_full_budget_and_nothing_counts_twice(
    cluster: RayMachines, two_sweeps: dict
) -> None:
    (cluster.head.home / "pace").write_text("0")
    for name, driver in two_sweeps.items():
        assert driver.wait(timeout=120) == 0, cluster.output(name[0]).read_text()[-3000:]
    for name in ("a", "b"):
        searches = cluster.evaluated(name)
        assert {search: counted.total() for search, counted in searches.items()} == {
            "sim-smooth-PS-s0": EVALUATIONS,
            "sim-smooth-PS_Summarizer-s0": EVALUATIONS,
        }
        assert {times for counted in searches.values() for times in counted.values()} == {1}
    again = cluster.begun() - len(cluster.measured("a", "b"))
    assert again <= MAX_BATCH, "only what the killed evaluator had on its device was begun twice"


@pytest.mark.patient
def test_a_full_disk_stops_the_searches_and_room_lets_them_go_on(cluster: RayMachines) -> None:
    folder = cluster.head.home / "sweeps" / "full"
    cluster.head.shell(f"mkdir {folder}; mount -t tmpfs -o size=1200k tmpfs {folder}")
    assert cluster.drive("full").wait(timeout=90) == 3
    assert "disk is full" in cluster.output("full").read_text()
    assert "0/2 searches over" in cluster.head.shell("kbopt sweep status full")
    cluster.head.shell(f"mount -o remount,size=100m {folder}")
    assert cluster.drive("full").wait(timeout=90) == 0, cluster.output("full").read_text()[-3000:]
    cluster.head.shell(f"cp -r {folder} {folder}-copy")  # to where it can be seen from outside
    searches = cluster.evaluated("full-copy").values()
    assert [counted.total() for counted in searches] == [EVALUATIONS] * 2
    assert {times for counted in searches for times in counted.values()} == {1}


@pytest.mark.patient
def test_results_survive_the_heads_restart(cluster: RayMachines) -> None:
    (cluster.head.home / "pace").write_text("0.1")
    cluster.drive("c", "--nodes", "2")
    cluster.goes_on("c", by=10)
    # On a busy machine the head's explorers may be first.
    wait_until(lambda: bool(cluster.worker.processes("ray::Explorer")), "the worker has explorers")
    cluster.head.power_off()
    wait_until(
        lambda: not cluster.worker.processes("ray::Explorer"),
        "the orphaned explorers have stopped by themselves",
        timeout_s=120,
    )
    cluster.switch_on("head")
    before = cluster.evaluated("c")
    cluster.ray("up", "-y", "--restart-only")
    (cluster.head.home / "pace").write_text("0")
    assert cluster.drive("c").wait(timeout=90) == 0, cluster.output("c").read_text()[-3000:]
    after = cluster.evaluated("c")
    assert [counted.total() for counted in after.values()] == [EVALUATIONS] * 2
    assert all(counted <= after[search] for search, counted in before.items())
    assert {times for counted in after.values() for times in counted.values()} == {1}


def test_down_stops_ray(cluster: RayMachines) -> None:
    cluster.ray("down", "-y")
    assert not cluster.head.processes("ray::")
