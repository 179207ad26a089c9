"""`kbopt audit` as a user starts it: sets of small kernels, the CPU judge, the page that it leaves."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kbopt.cli import app
from tests.cli.test_run import command, kbopt, start
from tests.reporting.test_report import page_data
from tests.support import formats
from tests.support.compilers import needs_extensions
from tests.support.drains import draining, start_drain
from tests.support.processes import kill_family
from tests.tasks.test_published import KERNEL, REFERENCE, write_lines

ROOT = Path(__file__).parents[2]
QUICK = ("--device", "cpu", "--timed", 10, "--trials", 2)
WRONG = KERNEL.replace("2.0", "3.0")
MISSING = "import no_such_package.ops\n" + KERNEL
IN_PLACE = KERNEL.replace("return torch.tanh(x).mul_(2.0)", "return x.tanh_().mul(2.0)")


def entry(name: str, kernel: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "reference": REFERENCE, "kernel": kernel, **fields}


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_set_is_judged_summed_up_and_shown_and_nothing_is_judged_twice(tmp_path: Path) -> None:
    path, out = tmp_path / "set.jsonl", tmp_path / "out"
    write_lines(
        path,
        entry("right", KERNEL, claim=3.0),
        entry("wrong", WRONG, claim=9.0),
        "{torn",
        entry("needs a package", MISSING),
        entry("in place", IN_PLACE),
        entry("right", KERNEL),
        entry("left out", KERNEL) | {"kernel": None},
    )
    arguments = ("audit", path, "--out", out, *QUICK)
    done = kbopt(*arguments)
    assert done.returncode == 0, done.stderr
    assert "7 entries in the format jsonl, 1 with the kernel and task of another" in done.stderr
    assert "5 of them bring their own reference" in done.stderr
    assert "[4/4]" in done.stderr
    assert Counter(line["outcome"] for line in lines_of(out)) == {
        "measured": 1,
        "wrong_answer": 1,
        "compile_failed": 1,
        "rejected": 1,
    }
    for said in (
        "    7 entries",
        "1 with wrong answers, 0 correct to KernelBench",
        "(1 input_mutation)",
        "(1 no_such_package)",
        "    1 that cannot be read",
        "    1 published without a kernel",
        "over the 1 kernel with a claim and a measured speedup: claimed 3.00x",
        f"page: {out / 'audit.html'}",
    ):
        assert said in done.stdout, done.stdout

    page = page_data((out / "audit.html").read_text())
    rows = {row["name"]: row for row in page["rows"]}
    assert rows["right"]["speedup"] == rows["right (2)"]["speedup"]
    assert (rows["right"]["claim"], rows["right (2)"]["claim"]) == (3.0, None)
    assert (rows["in place"]["standing"], rows["in place"]["family"]) == ("rejected", "input_mutation")
    assert rows["wrong"]["kernelbench"] is False
    assert f"{path}:3: no JSON" in rows[f"{path}:3"]["reason"]
    assert "Correct" in rows["right"]["feedback"]

    words = shlex.split(rows["wrong"]["command"])
    assert words[:2] == ["kbopt", "eval"]
    assert words[-6:] == ["--trials", "2", "--timed", "10", "--device", "cpu"]
    for option, text in (("--task", REFERENCE), ("--kernel", WRONG)):
        assert Path(words[words.index(option) + 1]).read_text() == text
    alone = kbopt(*words[1:], "--json")
    assert json.loads(alone.stdout)["outcome"] == "wrong_answer", alone.stderr

    with path.open("a") as file:
        file.write(json.dumps(entry("new name", WRONG)) + "\n")
    again = kbopt(*arguments)
    assert "4 candidates, 3 judged before\n1 more failed then" in again.stderr  # for want of a package
    assert "    2 with wrong answers" in again.stdout
    assert len(lines_of(out)) == 4


@pytest.mark.slow
def test_a_task_that_cannot_be_scored_is_told_and_not_asked_again(tmp_path: Path) -> None:
    copies = REFERENCE.replace("torch.tanh(x) * 2.0", "x")
    path = write_lines(tmp_path / "set.jsonl", {"reference": copies, "kernel": KERNEL, "claim": 2})
    arguments = ("audit", path, "--out", tmp_path / "out", *QUICK)
    done = kbopt(*arguments)
    assert done.returncode == 0, done.stderr
    assert "    1 with a task that cannot be scored here" in done.stdout
    assert "Of 1 claim none is of a kernel" in done.stdout
    again = kbopt(*arguments)
    assert "1 candidate, 1 judged before" in again.stderr
    (row,) = page_data((tmp_path / "out" / "audit.html").read_text())["rows"]
    assert "copy of an input" in row["reason"]


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(tmp_path: Path) -> None:
    slow = KERNEL.replace("return", "import time; time.sleep(0.2); return")
    path = write_lines(tmp_path / "set.jsonl", entry("first", KERNEL), entry("slow", slow))
    out = tmp_path / "out"
    arguments = ("audit", path, "--out", out, *QUICK)
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        (out / "results.jsonl").exists() and (out / "results.jsonl").stat().st_size
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "stopped; 1 of 2 candidates done" in told
    assert "the same command goes on" in told
    with path.open("w") as file:
        file.write(json.dumps(entry("first", KERNEL)) + "\n")
    done = kbopt(*arguments)
    assert "1 candidate, 1 judged before" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_spool_that_travels_is_judged_while_the_audit_is_away(tmp_path: Path) -> None:
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "out"
    copies = REFERENCE.replace("torch.tanh(x) * 2.0", "x")
    slow = KERNEL.replace("return", "import time; time.sleep(0.05); return")
    path = write_lines(
        tmp_path / "set.jsonl",
        entry("wrong", WRONG),
        entry("slow", slow),
        {"id": "refused", "reference": copies, "kernel": KERNEL},
        entry("right", KERNEL, claim=3.0),
    )
    arguments = ("audit", path, "--out", out, "--backend", "spool", "--spool", here, *QUICK)
    audit = start(*arguments)
    with draining(here, tmp_path / "state") as drain:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not ((out / "results.jsonl").exists() and lines_of(out)):
            time.sleep(0.05)
        kill_family(drain.pid)
    audit.send_signal(signal.SIGINT)
    _, told = audit.communicate(timeout=60)
    assert audit.returncode == 130, told
    rows = page_data((out / "audit.html").read_text())["rows"]
    assert Counter(row["standing"] for row in rows)["waiting"] == 4 - len(lines_of(out)) > 0

    for part in ("requests", "results"):  # what has to travel: neither claims nor signs of life
        shutil.copytree(here / part, there / part)
    second = start_drain(there, tmp_path / "state", "--once")
    _, said = second.communicate()
    assert second.returncode == 0, said
    shutil.copytree(there / "results", here / "results", dirs_exist_ok=True)

    def judged() -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stderr

    assert "4/4" not in judged()
    page = page_data((out / "audit.html").read_text())
    standings = {row["name"]: row["standing"] for row in page["rows"]}
    assert (standings["wrong"], standings["refused"]) == ("wrong", "refused")
    assert {standings["slow"], standings["right"]} <= {"confirmed", "not faster"}
    assert page["header"]["device"]
    before = lines_of(out)
    shutil.rmtree(here)  # as docs/spool.md allows, once its searches are over
    assert "4 candidates, 4 judged before" in judged()
    assert lines_of(out) == before
    again = Path(shutil.copytree(out, tmp_path / "again"))
    lines = (out / "results.jsonl").read_text()
    (again / "results.jsonl").write_text(lines.replace('"wrong_answer"', '"crashed"'))
    compared = CliRunner().invoke(app, ["compare", str(out), str(again), "--json"], catch_exceptions=False)
    found = json.loads(compared.stdout)
    (against,) = found["against"]
    (differing,) = against["differing"]
    assert (against["common"], against["agreeing"], against["both_correct"]) == (4, 3, 2)
    assert (differing["task"], differing["first"], differing["second"]) == (
        "wrong",
        "wrong_answer",
        "crashed",
    )
    assert (found["settings"], found["warnings"]) == ([], [])


@pytest.mark.slow
def test_where_the_page_has_no_room_its_sums_are_told_and_no_part_of_it_stays(tmp_path: Path) -> None:
    """The second of two lines cannot be read, which is told as well."""
    copies = REFERENCE.replace("torch.tanh(x) * 2.0", "x")
    path = write_lines(tmp_path / "set.jsonl", {"reference": copies, "kernel": KERNEL}, '{"id": "torn')
    out = tmp_path / "out"
    out.mkdir()
    (out / "audit.html.partial").symlink_to("/dev/full")
    done = kbopt("audit", path, "--out", out, *QUICK)
    assert done.returncode == 3, done.stderr
    assert "    1 with a task that cannot be scored here" in done.stdout
    assert f"left out: {path}:2: no JSON" in done.stderr
    assert "No space left on device. Make room; the same command goes on" in done.stderr.replace("'", "")
    assert sorted(file.name for file in out.iterdir()) == ["kernels", "results.jsonl", "tasks"]
    assert kbopt("audit", path, "--out", out, *QUICK).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small file system")
def test_a_full_disk_is_told_and_what_is_written_stays(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", *(entry(f"k{i}", f"{KERNEL}# {i}") for i in range(2)))
    out = tmp_path / "out"
    out.mkdir()
    audit = shlex.join(command("audit", path, "--out", out, *QUICK))
    script = (
        f"mount -t tmpfs -o size=16k none {out} && mkdir {out}/kernels {out}/tasks && "
        f"(head -c 1000000 /dev/zero > {out}/filler; true) && {audit}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    if "mount:" in done.stderr:
        pytest.skip("may not mount")
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr


@needs_extensions
@pytest.mark.slow
def test_the_example_set_is_what_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = kbopt("audit", ROOT / "experiments" / "published", *QUICK)
    assert done.returncode == 0, done.stderr
    page = page_data(Path("audits/published/audit.html").read_text())
    assert [row["name"] for row in page["rows"]] == ["honest", "stale", "in-place", "boastful"]
    standings = {row["name"]: (row["standing"], row["kernelbench"]) for row in page["rows"]}
    assert standings["stale"] == ("wrong", True)
    assert standings["in-place"] == ("rejected", True)
    # Other tests keep the cores busy, so how much faster the honest one is stands in no assertion.
    assert standings["honest"][1]
    low, high = next(row["ci"] for row in page["rows"] if row["name"] == "honest")
    assert 0 < low < high
    boastful = next(row for row in page["rows"] if row["name"] == "boastful")
    assert boastful["ci"][1] < boastful["claim"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "is empty"),
        (("notes.txt",), "none of the formats: it is a folder with the files 1 .txt"),
        (("set.jsonl",), "has no kernel that can be judged"),
    ],
)
def test_a_set_without_kernels_exits_with_what_was_seen(
    texts: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in texts:
        (folder / name).write_text("{no json\n")
    done = kbopt("audit", folder, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_claims_are_over_eager_so_nothing_else_may_rank(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", entry("k", KERNEL))
    done = kbopt("audit", path, "--baseline", "compile")
    assert done.returncode == 2
    assert "leave --baseline compile out" in done.stderr


def test_a_format_that_is_none_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["audit", "x", "--format", "cuda-l2"])
    assert "Did you mean cuda-l1?" in done.output


@pytest.mark.slow
def test_solutions_are_judged_at_the_precision_that_each_task_states(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    half = json.loads(json.dumps(formats.NORM).replace("float32", "float16"))
    for name, definition in (("single", formats.NORM), ("half", half)):
        formats.write_sol(folder / name, definition)
        solution = {
            "name": name,
            "spec": {"entry_point": "main.py::run"},
            "sources": [{"path": "main.py", "content": formats.NORM_KERNEL}],
        }
        (folder / name / "solution.json").write_text(json.dumps(solution))
    done = kbopt("audit", folder, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    judged = {line["task"].split("/")[-2]: line for line in lines_of(out)}
    assert {name: line["outcome"] for name, line in judged.items()} == {
        "single": "measured",
        "half": "measured",
    }, judged
    assert "/fp32/" in judged["single"]["protocol"]
    assert "/fp16/" in judged["half"]["protocol"]
    page = page_data((out / "audit.html").read_text())
    assert (page["header"]["form"], page["sums"]["entries"]) == ("solutions", 2)
