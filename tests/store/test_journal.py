import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbopt.core.costs import Usage
from kbopt.core.errors import InfraError, UserError
from kbopt.core.events import Ended, Entry, Opened, ProposalFailed
from kbopt.store.journal import FORMAT_VERSION, JournalReader, SqliteJournal
from tests.support.unwritable import unwritable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.sqlite"


def test_entries_come_back_equal_and_numbered_from_one(path: Path) -> None:
    failed = ProposalFailed(brief="c000001", reason="no code", usage=(Usage(model="m", usd=None),))
    journal = SqliteJournal.create(path, "{}")
    for event in (Opened(session=1), failed, Ended(reason="evaluations")):
        journal.append(event)
    entries = list(journal.entries())
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert [entry.event for entry in entries] == [Opened(session=1), failed, Ended(reason="evaluations")]
    assert entries[0].time <= entries[1].time <= entries[2].time
    journal.close()


def test_a_reader_follows_a_journal_that_is_being_written(path: Path) -> None:
    journal = SqliteJournal.create(path, '{"a":1}')
    with JournalReader(path) as reader:
        assert reader.config == '{"a":1}'
        journal.append(Opened(session=1))
        assert [entry.number for entry in reader.entries()] == [1]
        journal.append(Opened(session=2))
        assert [entry.event for entry in reader.entries(after=1)] == [Opened(session=2)]
    journal.close()


def test_an_existing_journal_is_never_overwritten(path: Path) -> None:
    SqliteJournal.create(path, "{}").close()
    with pytest.raises(UserError, match="holds another run"):
        SqliteJournal.create(path, "{}")


def test_a_journal_that_is_there_has_its_header(tmp_path: Path) -> None:
    """Whoever looks for a run's journal may do so while it is being created."""
    paths = [tmp_path / str(number) / "journal.sqlite" for number in range(100)]
    creator = threading.Thread(target=lambda: [SqliteJournal.create(path, "{}").close() for path in paths])
    creator.start()
    for path in paths:
        while not path.exists():
            time.sleep(0)
        with JournalReader(path) as reader:
            assert reader.config == "{}"
    creator.join()


def test_a_second_writer_is_refused_until_the_first_is_gone(path: Path) -> None:
    first = SqliteJournal.create(path, "{}")
    with pytest.raises(UserError, match="another process is writing"):
        SqliteJournal(path)
    first.close()
    SqliteJournal(path).close()


def test_reopening_goes_on_with_the_next_number(path: Path) -> None:
    journal = SqliteJournal.create(path, "{}")
    journal.append(Opened(session=1))
    journal.close()
    journal = SqliteJournal(path)
    journal.append(Opened(session=2))
    assert [entry.number for entry in journal.entries()] == [1, 2]
    journal.close()


def test_a_damaged_journal_says_up_to_which_entry_it_can_be_read(path: Path) -> None:
    journal = SqliteJournal.create(path, "{}")
    for number in range(300):
        journal.append(ProposalFailed(brief=f"c{number:06d}", reason="no code " * 20))
    journal.close()
    content = bytearray(path.read_bytes())
    for page in range(len(content) // 2 // 4096, len(content) // 4096):
        content[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    seen: list[Entry] = []
    with JournalReader(path) as reader, pytest.raises(UserError, match="damaged after entry") as raised:
        seen.extend(reader.entries())
    assert 0 < len(seen) < 300
    assert f"after entry {seen[-1].number}:" in str(raised.value)


def test_a_newer_format_is_refused_with_both_versions(path: Path) -> None:
    SqliteJournal.create(path, "{}").close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("update header set value = '99' where key = 'format'")
    connection.close()
    with pytest.raises(UserError, match=f"format 99; this kbopt reads up to {FORMAT_VERSION}"):
        JournalReader(path)


def test_a_file_that_is_no_journal_is_a_user_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database at all, but long enough to be taken for one" * 100)
    with pytest.raises(UserError, match="not a kbopt journal"):
        JournalReader(path)


@pytest.mark.parametrize("left", [(), ("-wal",), ("-wal", "-shm")], ids=" ".join)
def test_a_journal_that_one_may_not_write_is_read_with_what_a_killed_run_left(
    path: Path, left: tuple[str, ...]
) -> None:
    events = [Opened(session=1), Ended(reason="evaluations")]
    journal = SqliteJournal.create(path, "{}")
    for event in events:
        journal.append(event)
    folder = path.parent.with_name("a run?")
    folder.mkdir()
    for ending in left:
        shutil.copyfile(f"{path}{ending}", folder / f"{path.name}{ending}")
    if not left:
        journal.close()
    shutil.copyfile(path, folder / path.name)
    with unwritable(folder), JournalReader(folder / path.name) as reader:
        assert [entry.event for entry in reader.entries()] == events
        assert reader.last == 2
        assert {one.name for one in folder.iterdir()} == {f"{path.name}{ending}" for ending in ("", *left)}
    if left:
        journal.close()


def test_a_journal_that_one_may_not_read_is_not_called_another_file(path: Path) -> None:
    SqliteJournal.create(path, "{}").close()
    path.chmod(0o000)
    with unwritable(path.parent), pytest.raises(UserError, match=r"cannot be read: .* that you may read"):
        JournalReader(path)


def test_a_missing_journal_is_a_user_error(path: Path) -> None:
    with pytest.raises(UserError, match="no journal at"):
        JournalReader(path)


def test_every_appended_event_survives_kill_9(path: Path) -> None:
    script = f"""
import sys
import threading
import time
from pathlib import Path
from kbopt.core.events import Opened
from kbopt.store.journal import SqliteJournal
journal = SqliteJournal.create(Path({str(path)!r}), "{{}}")
for session in range(1, 100_000):
    journal.append(Opened(session=session))
    print(session, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    reported = [int(next(process.stdout)) for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    reported += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    journal = SqliteJournal(path)
    kept = [entry.event.session for entry in journal.entries() if isinstance(entry.event, Opened)]
    assert kept[: len(reported)] == reported
    journal.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_an_infrastructure_error_and_keeps_what_was_there(small: Path) -> None:
    journal = SqliteJournal.create(small / "journal.sqlite", "{}")
    written = 0
    room = shutil.disk_usage(small).free // 10_000
    for _ in range(room // 4):
        journal.append(Ended(reason="x" * 10_000))
        written += 1
    with pytest.raises(InfraError, match="cannot write"):
        journal.append(Ended(reason="x" * room * 10_000))
    assert len(list(journal.entries())) == written
    journal.close()


def test_a_run_that_a_full_disk_does_not_take_leaves_no_folder(small: Path) -> None:
    (small / "filler").write_bytes(b"x" * shutil.disk_usage(small).free)
    with pytest.raises(UserError, match="disk is full"):
        SqliteJournal.create(small / "run" / "journal.sqlite", "{}")
    assert [one.name for one in small.iterdir()] == ["filler"]
