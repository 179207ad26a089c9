"""The library: a file that people edit and several searches add to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbopt.core.errors import UserError
from kbopt.core.lessons import Lesson
from kbopt.store.lessons import add_lessons, read_lessons

LESSON = Lesson(
    kind="faster",
    text='Wider loads: "float4" and \\n.',
    task="quick/softmax",
    family="softmax",
    language="cuda",
    device="NVIDIA H200",
    gain=1.32,
    interval=(1.21, 1.44),
    date="2026-11-29",
    run="first",
    id="a1",
)


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lessons.toml"
    assert read_lessons(path) == ()
    assert (
        add_lessons(path, [LESSON, replace(LESSON, id="a2", kind="error", gain=0.0, interval=(0.0, 0.0))])
        == 2
    )
    assert read_lessons(path) == (
        LESSON,
        replace(LESSON, id="a2", kind="error", gain=0.0, interval=(0.0, 0.0)),
    )
    assert path.read_text().startswith("# Lessons of kbopt's searches")


def test_a_lesson_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    path = tmp_path / "lessons.toml"
    add_lessons(path, [LESSON])
    before = path.read_text()
    assert add_lessons(path, [LESSON]) == 0
    assert path.read_text() == before


def test_what_a_person_wrote_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lessons.toml"
    mine = '# mine\n\n[[lesson]]\ntext = """Two\nlines."""   # as I like it\ndate = 2026-11-29\n'
    path.write_text(mine)
    add_lessons(path, [LESSON])
    assert path.read_text().startswith(mine)
    own, added = read_lessons(path)
    assert (own.text, own.date, own.kind) == ("Two lines.", "2026-11-29", "advice")
    assert added == LESSON


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1).filter(lambda text: any(c.isprintable() and c != " " for c in text)))
def test_no_text_breaks_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("library") / "lessons.toml"
    add_lessons(path, [replace(LESSON, text=text, device=text)])
    (found,) = read_lessons(path)
    assert found.text.isprintable()
    assert found == replace(found, text=found.device) or len(found.text) < len(found.device)
    add_lessons(path, [replace(LESSON, id="a2")])
    assert len(read_lessons(path)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[lesson]", "cannot be used"),
        ("[[lesson]]\nkind = 'error'", "lesson 1 has no text"),
        ("[[lesson]]\ntext = 'a'\n[[lesson]]\ntext = 'a'\ngian = 1.0", "lesson 2 has 'gian', and known are"),
        ("[[lesson]]\ntext = 'a'\nkind = 'good'", "kind of lesson 1 is 'good'"),
        ("[[lesson]]\ntext = 'a'\ngain = 'much'", "gain of lesson 1 is 'much'"),
        ("[[lesson]]\ntext = 'a'\ninterval = [1]", "interval of lesson 1"),
        ("lesson = 'a'", "begins with \\[\\[lesson\\]\\]"),
        ("name = 'a'", "it has 'name'"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_is_left_alone(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "lessons.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_lessons(path)
    with pytest.raises(UserError, match=message):
        add_lessons(path, [LESSON])
    assert path.read_text() == text


def test_searches_that_end_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lessons.toml"
    program = (
        "import sys; from pathlib import Path; from kbopt.core.lessons import Lesson\n"
        "from kbopt.store.lessons import add_lessons\n"
        "for n in range(40): add_lessons(Path(sys.argv[1]), [Lesson(text='x', id=f'{sys.argv[2]}-{n}')])"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(number)]) for number in range(3)
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    found = [lesson.id for lesson in read_lessons(path)]
    assert sorted(found) == sorted(f"{number}-{n}" for number in range(3) for n in range(40))
    assert {entry.name for entry in tmp_path.iterdir()} == {"lessons.toml", "lessons.toml.lock"}
