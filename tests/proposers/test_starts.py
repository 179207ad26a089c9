"""A search from the user's own kernels."""

from pathlib import Path

import pytest

from kbopt.core.errors import UserError
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial
from kbopt.core.task import Seed, Task, seed_name
from kbopt.core.tune_comments import parse
from kbopt.proposers.starts import StartingProposer, check_starts, read_starts
from kbopt.proposers.tunables import TunablesProposer

TASK = Task(name="mine.py", source="")
TUNED = "BLOCK = 64  # tune: 32, 64, 128\n\nclass ModelNew:\n    pass\n"
OTHER = "STEP = 1  # tune: 1, 2\n\nclass ModelNew:\n    pass\n"


def written(folder: Path, **sources: str) -> list[Path]:
    paths = [folder / f"{name}.py" for name in sources]
    for path, source in zip(paths, sources.values(), strict=True):
        path.write_text(source)
    return paths


def proposer(starts: tuple[Seed, ...]) -> StartingProposer:
    return StartingProposer(starts, TunablesProposer(device_kind="cpu", starts=starts))


def brief(number: int, parent: Candidate | None = None) -> Brief:
    trial = Trial(candidate=parent, results=()) if parent else None
    return Brief(
        id=f"c{number:06d}", task=TASK, parent=trial, exemplars=(), summary="", seed=number, memory_version=0
    )


async def answer(starts: tuple[Seed, ...], number: int, parent: Candidate | None = None) -> Candidate:
    found = await proposer(starts).propose(brief(number, parent))
    assert isinstance(found, Candidate), found
    return found


async def test_the_first_candidates_are_the_users_kernels_and_the_next_their_variations(
    tmp_path: Path,
) -> None:
    starts = read_starts(written(tmp_path, mine=TUNED, other=OTHER))
    first = [await answer(starts, number) for number in (1, 2)]
    assert [one.source.removesuffix(f"\n# seed: {seed_name(one.source)}\n") for one in first] == [
        TUNED,
        OTHER,
    ]
    assert [(one.proposer, one.note) for one in first] == [
        ("start", "mine as it was given"),
        ("start", "other as it was given"),
    ]
    later = [await answer(starts, number) for number in range(3, 40)]
    assert {seed_name(one.source) for one in later} == {"mine", "other"}
    assert {one.proposer for one in later} == {"tunables"}
    varied = await answer(starts, 40, parent=first[0])
    assert varied.source != first[0].source


async def test_a_parent_is_left_for_another_of_the_users_kernels(tmp_path: Path) -> None:
    starts = read_starts(written(tmp_path, mine=TUNED, other=OTHER))
    parent = await answer(starts, 1)
    notes = {(await answer(starts, number, parent)).note for number in range(3, 40)}
    assert "switch to other" in notes
    assert {note for note in notes if note.startswith("BLOCK")} == {"BLOCK 64 -> 32", "BLOCK 64 -> 128"}


def test_files_of_one_name_are_told_apart_and_a_seed_line_is_kept(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = written(tmp_path / "a", kernel=TUNED) + written(
        tmp_path / "b", kernel=OTHER, best=f"# seed: s/rows\n{TUNED}"
    )
    starts = read_starts(paths)
    assert [start.name for start in starts] == ["kernel", "kernel-2", "s/rows"]
    assert [seed_name(start.source) for start in starts] == ["kernel", "kernel-2", "s/rows"]
    assert parse(starts[0].source) == parse(TUNED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe\x00", "cannot be read: invalid or missing encoding"),
        (b"class ModelNew(\n", "is no Python source"),
        (b"a = 1\x00", "is no Python source"),
        (b"", "defines no ModelNew"),
        (b"class Model: pass\n", "defines no ModelNew"),
    ],
)
def test_a_file_that_is_no_kernel_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_starts([path])


@pytest.mark.parametrize(
    "encoded", ["\ufeff# é\n{}".encode(), "# coding: latin-1\n# é\n{}".encode("latin-1")]
)
def test_a_file_is_read_as_python_reads_it(encoded: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    path.write_bytes(encoded.replace(b"{}", TUNED.encode()))
    [start] = read_starts([path])
    assert "# é\n" + TUNED in start.source
    assert not start.source.startswith("\ufeff")


@pytest.mark.parametrize(
    "source",
    [
        "ModelNew = object\n",
        "from torch.nn import Identity as ModelNew\n",
        "if True:\n    class ModelNew: pass\n",
    ],
)
def test_modelnew_may_be_defined_in_any_way(source: str, tmp_path: Path) -> None:
    assert read_starts(written(tmp_path, kernel=source))[0].name == "kernel"


def test_a_kernel_without_anything_to_vary_needs_a_model(tmp_path: Path) -> None:
    plain = read_starts(written(tmp_path, plain="class ModelNew: pass\n"))
    with pytest.raises(
        UserError, match=r"--start plain: no `# tune:` comment with alternatives.*--proposer llm"
    ):
        check_starts(plain)
    check_starts((*plain, *read_starts(written(tmp_path, mine=TUNED))))


async def test_a_kernel_without_tunables_is_proposed_and_then_has_no_variation(tmp_path: Path) -> None:
    [plain] = read_starts(written(tmp_path, plain="class ModelNew: pass\n"))
    first = await answer((plain,), 1)
    assert isinstance(await proposer((plain,)).propose(brief(2, first)), NoProposal)
