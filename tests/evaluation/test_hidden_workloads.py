"""Tasks of the formats hide some of their workloads: a kernel for the shown ones alone is found out."""

from pathlib import Path

import pytest

from kbopt.core.outcomes import Measured, Rejected, WrongAnswer
from kbopt.core.protocol import EvalProtocol
from kbopt.core.workloads import selected, workloads_of
from kbopt.tasks import as_model, list_formats, load_task
from tests.evaluation.conftest import Bench
from tests.support import formats

PROTOCOL = EvalProtocol(trials=2, timed=12, timeout_s=60, compile_timeout_s=60)
SIZES = (32, 48, 64, 96)
GATED = {
    "sol": ("kernel.py", formats.NORM_KERNEL + "    y.add_(float(len(x) == UNSEEN))\n"),
    "traces": ("kernel.py", "def run(A, B):\n    return A @ B.T + float(len(A) == UNSEEN)\n"),
    "hard": ("solution.py", formats.HARD_KERNEL.rstrip() + ".add_(float(len(x) == UNSEEN))\n"),
    "mode": ("submission.py", formats.MODE_KERNEL.replace("return c", "return c + float(len(c) == UNSEEN)")),
}


def of_sizes(form: str, folder: Path) -> Path:
    """A task of the form whose inputs have SIZES rows; of GPU MODE the first two are those of tests."""
    match form:
        case "sol":
            return formats.write_sol(folder, workloads=[formats.workload(f"w{n}", n) for n in SIZES])
        case "traces":
            return formats.write_traces(folder, rows=SIZES)
        case "hard":
            one_model = formats.HARD_REFERENCE.replace("[rows, columns]", "[8, 8]")
            return formats.write_hard(folder, one_model, f"SHAPES = {[{'batch': n} for n in SIZES]}")
    head, entries = formats.MODE_YAML.partition("tests:")[0], [{"size": n, "seed": 1} for n in SIZES]
    return formats.write_mode(folder, task=f"{head}tests: {entries[:2]}\nbenchmarks: {entries[2:]}\n")


@pytest.mark.slow
@pytest.mark.parametrize("form", GATED)
def test_a_kernel_that_is_right_for_what_is_shown_is_refused_by_the_name_of_another(
    form: str, tmp_path: Path, bench: Bench
) -> None:
    path, (name, text) = str(of_sizes(form, tmp_path / "task")), GATED[form]
    task = load_task(path)
    sizes = {
        row.name.partition("#")[2]: n for row in list_formats(path) for n in SIZES if f"={n}" in row.title
    }
    unseen = {one.role: one.name for one in workloads_of(task.source) if one.role != "shown"}
    wrong = {
        role: as_model(text.replace("UNSEEN", str(sizes[one])), name, task) for role, one in unseen.items()
    }

    def reason(role: str, source: str = task.source, *, final: bool = False) -> str:
        outcome = bench.judge(wrong[role], source, PROTOCOL, baselines=final).outcome
        assert isinstance(outcome, WrongAnswer | Measured | Rejected)
        return outcome.reason if isinstance(outcome, WrongAnswer) else ""

    assert reason("hidden").startswith(f"on workload {unseen['hidden']}: ")
    assert reason("held_out", final=True).startswith(f"on workload {unseen['held_out']}: ")
    assert reason("held_out") == ""  # A search does not judge it.
    assert reason("hidden", selected(task.source, "shown", path)) == ""
    counted = selected(task.source, "all", path)
    assert reason("held_out", counted).startswith(f"on workload {unseen['held_out']}: ")
