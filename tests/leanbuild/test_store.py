import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbopt.core.errors import InfraError
from kbopt.leanbuild.store import Store, TooMuchLeft, build_key, remove

HOLDER = """
import sys, time
from pathlib import Path
from kbopt.leanbuild.store import Store
store = Store(Path(sys.argv[1]))
with store.building(sys.argv[2]):
    staging = store.staging()
    (staging / "half").write_text("half a result")
    print("held", flush=True)
    time.sleep(60)
"""


def key_of(text: str) -> str:
    return build_key(text, flags={}, toolchain_key="t")


def publish(store: Store, key: str, files: dict[str, str], *, ok: bool = True, log: str = "") -> Path:
    built = store.staging()
    for name, text in files.items():
        (built / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).write_text(text)
    return store.publish(key, built, ok=ok, log=log, seconds=1.5).directory


def hold(store: Store, key: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root), key],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def test_a_published_build_is_found_by_another_store_on_the_same_directory(tmp_path: Path) -> None:
    key = key_of("a")
    publish(Store(tmp_path), key, {"x/a.so": "binary"}, log="a warning")
    entry = Store(tmp_path).find(key)
    assert entry is not None
    assert (entry.directory / "x" / "a.so").read_text() == "binary"
    assert (entry.ok, entry.log, entry.seconds) == (True, "a warning", 1.5)


def test_every_part_of_the_key_changes_it() -> None:
    keys = {
        build_key("a", flags={}, toolchain_key="t"),
        build_key("b", flags={}, toolchain_key="t"),
        build_key("a", flags={"headers": "1"}, toolchain_key="t"),
        build_key("a", flags={}, toolchain_key="u"),
    }
    assert len(keys) == 4


def test_a_key_that_could_name_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        Store(tmp_path).find("../locks")


def test_a_compiler_message_about_a_lock_is_an_ordinary_failure(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("a")
    publish(store, key, {}, ok=False, log="error: 'lock' was not declared in this scope; cannot acquire lock")
    entry = store.find(key)
    assert entry is not None
    assert not entry.ok
    assert "'lock' was not declared" in entry.log


def test_the_first_publication_of_a_key_stays(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("a")
    publish(store, key, {"a": "first"})
    assert (publish(store, key, {"a": "second"}) / "a").read_text() == "first"


def test_links_and_pipes_left_by_a_build_are_not_followed(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "store"), key_of("a")
    secret = tmp_path / "secret"
    secret.write_text("the oracle")
    built = store.staging()
    (built / "honest").write_text("x")
    (built / "link").symlink_to(secret)
    (built / "folder").symlink_to(tmp_path)
    os.mkfifo(built / "pipe")
    entry = store.publish(key, built, ok=True, log="", seconds=0.0)
    assert sorted(entry.files) == ["honest"]
    assert sorted(path.name for path in entry.directory.iterdir()) == ["honest"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("a")
    directory = publish(store, key, {"a.so": "binary"})
    entry = store.find(key)
    assert entry is not None
    store.verify(entry)
    (directory / "a.so").chmod(0o644)
    (directory / "a.so").write_text("poison")
    with pytest.raises(InfraError, match="has changed since it was built"):
        store.verify(entry)


def test_a_killed_builder_leaves_no_lock_and_no_entry(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("a")
    holder = hold(store, key)
    end(holder)
    started = time.monotonic()
    with store.building(key) as found:
        assert found is None
    assert time.monotonic() - started < 5


def test_builders_of_one_key_wait_for_each_other_and_share_the_result(tmp_path: Path) -> None:
    key = key_of("a")
    program = (
        "import sys, time; from pathlib import Path; from kbopt.leanbuild.store import Store\n"
        "store = Store(Path(sys.argv[1])); key = sys.argv[2]\n"
        "with store.building(key) as found:\n"
        "    if found is None:\n"
        "        built = store.staging(); (built / 'a').write_text('x'); time.sleep(0.5)\n"
        "        store.publish(key, built, ok=True, log='', seconds=0.0); print('built')\n"
        "    else:\n"
        "        print('found')\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), key], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in processes) == [
        "built",
        "found",
        "found",
    ]


def test_the_least_recently_used_entry_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [key_of(name) for name in "abc"]
    for age, key in enumerate(keys):
        publish(store, key, {"file": "x" * 1000})
        os.utime(store.root / "entries" / key, (1000 + age, 1000 + age))
    store.find(keys[0])
    small = Store(tmp_path, limit_bytes=2000)
    assert small.prune() == 1
    assert [small.find(key) is None for key in keys] == [False, True, False]


def test_an_entry_that_another_process_builds_is_not_evicted(tmp_path: Path) -> None:
    store, key = Store(tmp_path, limit_bytes=10**6), key_of("a")
    publish(store, key, {"file": "x" * 1000})
    holder = hold(store, key)
    small = Store(tmp_path, limit_bytes=0)
    try:
        assert small.prune() == 0
    finally:
        end(holder)
    assert small.prune() == 1


def test_an_entry_of_an_older_format_is_evicted_like_any_other(tmp_path: Path) -> None:
    store, key = Store(tmp_path, limit_bytes=0), key_of("a")
    publish(store, key, {"file": "x" * 1000})
    record = tmp_path / "entries" / key / "entry.json"
    record.chmod(0o600)
    record.write_text(json.dumps({"size_bytes": json.loads(record.read_text())["size_bytes"]}))
    assert store.prune() == 1


def test_publications_keep_the_store_within_its_limit(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=10_000)

    for number in range(6):
        publish(store, key_of(str(number)), {"lib.so": "x" * 3000})

    assert len(list((tmp_path / "entries").iterdir())) == 3
    assert store.find(key_of("5")) is not None


def test_a_small_publication_does_not_look_at_the_entries_of_others(tmp_path: Path) -> None:
    """Looking at all of them each time makes a thousand evaluations twice as slow as the first."""
    store = Store(tmp_path)
    first = publish(store, key_of("a"), {"lib.so": "x"})
    record = first.parent / "entry.json"
    record.chmod(0o600)
    record.write_text(json.dumps({"size_bytes": 2**60}))

    publish(store, key_of("b"), {"lib.so": "x"})

    assert first.is_dir()
    store.prune()
    assert not first.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "x"}'])
def test_a_damaged_entry_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = publish(store, key_of("a"), {"lib.so": "x"}).parent / "entry.json"
    record.chmod(0o600)
    record.write_text(text)

    store.prune()
    assert store.find(key_of("a")) is None
    publish(store, key_of("a"), {"lib.so": "y"})
    assert store.find(key_of("a")) is not None


def test_names_of_any_bytes_are_kept_and_locks_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = store.staging()
    for name in (b"\xff\xfe", b"a\nb\x1b[2K", b"x" * 255, b"lock"):
        Path(os.fsdecode(os.fsencode(built) + b"/" + name)).write_text("x")
    os.mkfifo(built / "pipe")
    (built / "link").symlink_to("/etc/passwd")

    entry = store.publish(key_of("a"), built, ok=True, log="", seconds=1.0)

    assert sorted(map(os.fsencode, entry.files)) == [b"a\nb\x1b[2K", b"x" * 255, b"\xff\xfe"]
    store.verify(entry)


def test_folders_nested_deeper_than_a_path_may_be_long_are_too_much_and_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = store.staging()
    home = Path.cwd()
    os.chdir(built)
    try:
        for _ in range(1500):
            Path("deeper").mkdir()
            os.chdir("deeper")
    finally:
        os.chdir(home)

    with pytest.raises(TooMuchLeft, match="nested folders"):
        store.publish(key_of("a"), built, ok=True, log="", seconds=1.0)
    remove(built)
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_file_of_a_terabyte_without_content_is_too_much(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = store.staging()
    with (built / "sparse").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(TooMuchLeft, match="512 MiB"):
        store.publish(key_of("a"), built, ok=True, log="", seconds=1.0)
    assert store.find(key_of("a")) is None
