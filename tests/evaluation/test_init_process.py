"""Pauses, and the count of processes, of real sandboxes that run a test's code in place of the runner's."""

import ctypes
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kbopt.evaluation.judge.link import CandidateDied, Link
from kbopt.evaluation.sandbox import init_process, linux, seccomp
from kbopt.evaluation.sandbox.confinement import Isolation, SandboxConfig
from kbopt.evaluation.sandbox.init_process import Ends
from kbopt.evaluation.transport.channel import Channel
from tests.support.slow_disk import PAGE_BYTES, PAGES, slow_file

COUNTED = Isolation(calls=True, counted=True)


class Sandbox:
    """The init process's pid, its line to the test, and what the test's code in it has to say."""

    def __init__(self, pid: int, link: Link, said: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.said = said

    def hear(self) -> bytes:
        self.said.settimeout(20)
        return self.said.recv(100)


@contextmanager
def sandbox(
    body: Callable[[socket.socket], None], folder: Path, isolation: Isolation = COUNTED
) -> Iterator[Sandbox]:
    """Run `body` with a socket to the test."""
    said, says = socket.socketpair()
    control, control_theirs = socket.socketpair()
    status_read, status_write = os.pipe()
    config = SandboxConfig(memory_bytes=2**32, environ={}, scratch_fallback=str(folder / "scratch"), serial=1)
    pid = os.fork()
    if pid == 0:
        try:
            init_process.run(
                config,
                isolation,
                lambda: body(says),
                Ends(says.fileno(), control_theirs.fileno(), status_write, os.dup(2)),
                is_build=False,
            )
        finally:
            os._exit(1)
    for end in (says, control_theirs):
        end.close()
    os.close(status_write)
    link = Link(said.dup(), control.detach(), 10.0)
    try:
        yield Sandbox(pid, link, said)
    finally:
        os.kill(pid, signal.SIGKILL)
        for child in linux.descendants(pid):
            os.kill(child, signal.SIGKILL)
        os.waitpid(pid, 0)
        link.close()
        said.close()
        os.close(status_read)


def spin() -> None:
    while True:
        pass


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.001)
    return False


def test_everything_stands_while_it_is_paused(tmp_path: Path):
    def body(says: socket.socket) -> None:
        if os.fork() == 0:
            spin()
        says.send(b"ready")
        spin()

    with sandbox(body, tmp_path) as box:
        assert box.hear() == b"ready"
        _, stands = box.link.hold()
        pids = linux.descendants(box.pid)
        before = [linux.process_cpu_ns(pid) for pid in pids]
        time.sleep(0.05)

        assert stands
        assert len(pids) == 2
        assert [linux.process_cpu_ns(pid) for pid in pids] == before
        assert box.link.stands()
        box.link.resume()
        assert eventually(
            lambda: all(linux.process_cpu_ns(pid) > old for pid, old in zip(pids, before, strict=True))
        )


def test_a_process_that_waits_for_its_disk_is_waited_for(tmp_path: Path):
    """It would go on in the pause, when the disk answers, and be taken for one that was woken."""
    file = tmp_path / "pages"
    file.write_bytes(os.urandom(2**25))
    os.sync()

    def body(says: socket.socket) -> None:
        fd = os.open(file, os.O_RDONLY)
        says.send(b"ready")
        while True:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for offset in range(0, 2**25, 2**20):
                os.pread(fd, 4096, offset)

    with sandbox(body, tmp_path) as box:
        assert box.hear() == b"ready"
        broken = 0
        for _ in range(100):
            assert box.link.hold()[1]
            time.sleep(0.002)
            broken += not box.link.stands()
            box.link.resume()
            time.sleep(0.001)
        assert broken == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may serve files to every process")
@pytest.mark.parametrize("seconds", [0.8, 6.0], ids=["a slow page", "one slower than a thread may be"])
def test_a_page_that_comes_over_a_network_is_waited_for(tmp_path: Path, seconds: float):
    """Half a second was too little: a kernel whose code was loaded as it ran was called a forgery."""
    (tmp_path / "slow").mkdir()
    with slow_file(tmp_path / "slow", seconds) as file:

        def body(says: socket.socket) -> None:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as pages:
                says.send(b"ready")
                for page in range(PAGES):
                    pages[page * PAGE_BYTES]

        with sandbox(body, tmp_path) as box:
            assert box.hear() == b"ready"
            time.sleep(0.1)  # It waits for the first page. The signal makes that wait uninterruptible.
            assert box.link.hold()[1]
            time.sleep(1.0)
            assert box.link.stands()


def test_a_process_that_was_woken_in_a_pause_is_noticed_at_its_end(tmp_path: Path):
    def body(says: socket.socket) -> None:
        says.send(b"ready")
        spin()

    with sandbox(body, tmp_path) as box:
        assert box.hear() == b"ready"
        assert box.link.hold()[1]
        (child,) = linux.descendants(box.pid)
        spent = linux.process_cpu_ns(child)
        os.kill(child, signal.SIGCONT)
        assert eventually(lambda: linux.process_cpu_ns(child) > spent)
        os.kill(child, signal.SIGSTOP)

        assert not box.link.stands()
        box.link.resume()
        assert box.link.hold()[1]
        assert box.link.stands()


def test_a_process_that_has_ended_and_is_reaped_in_a_pause_does_not_break_it(tmp_path: Path):
    def body(says: socket.socket) -> None:
        if os.fork() == 0:
            if os.fork() == 0:
                says.send(b"ready")
                says.recv(1)
                os._exit(0)
            os._exit(0)
        os.wait()
        spin()

    with sandbox(body, tmp_path) as box:
        assert box.hear() == b"ready"
        os.kill(box.pid, signal.SIGSTOP)  # Until there is an orphan that it has not reaped.
        box.said.send(b"x")
        assert eventually(lambda: {"Z"} in [linux.states(pid) for pid in linux.descendants(box.pid)])
        going_on = threading.Timer(0.1, os.kill, (box.pid, signal.SIGCONT))
        going_on.start()
        assert box.link.hold()[1]
        assert eventually(lambda: {"Z"} not in [linux.states(pid) for pid in linux.descendants(box.pid)])
        assert box.link.stands()


def test_processes_that_ended_are_counted_whoever_reaped_them_and_threads_are_not(tmp_path: Path):
    def body(says: socket.socket) -> None:
        import subprocess

        says.send(b"ready")
        says.recv(1)
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        says.send(b"thread")
        says.recv(1)
        os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {}), 0)
        subprocess.run(["sh", "-c", "exit 0"], env={"PATH": "/bin:/usr/bin"}, check=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if (child := os.fork()) == 0:
            os._exit(0)
        while Path(f"/proc/{child}").exists():
            pass
        if os.fork() == 0:
            spin()
        says.send(b"programs")
        spin()

    with sandbox(body, tmp_path) as box:
        assert box.hear() == b"ready"
        box.said.send(b"x")
        assert box.hear() == b"thread"
        assert box.link.hold() == (0, True)
        box.link.resume()
        box.said.send(b"x")
        assert box.hear() == b"programs"
        assert box.link.hold() == (3, True)


@pytest.mark.parametrize("starts", ["counted", "unshared", "free"])
def test_threads_start_and_processes_that_share_memory_do_not(tmp_path: Path, starts: seccomp.Starts):
    def outcome() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        linux.forbid_new_privileges()
        seccomp.refuse_calls(starts)
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        clone = 56 if os.uname().machine == "x86_64" else 220
        shares_memory = 0x100 | signal.SIGCHLD
        return 0 if libc.syscall(clone, shares_memory, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1 else 1

    pid = os.fork()
    if pid == 0:
        os._exit(outcome())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_another_machines_filter_is_not_guessed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(OSError, match="riscv64"):
        seccomp.refuse_calls("free")


def test_a_reader_is_allowed_where_yama_asks_for_it_and_needs_no_capability(tmp_path: Path):
    """Without namespaces, as where Yama matters: a sibling without capabilities, as a user's judge is."""

    def body(says: socket.socket) -> None:
        secret = ctypes.create_string_buffer(b"an output", 16)
        says.send(str(ctypes.addressof(secret)).encode())
        spin()

    with sandbox(body, tmp_path) as box:
        address = int(box.hear())
        (child,) = linux.descendants(box.pid)
        sibling = os.fork()
        if sibling == 0:
            buffer = ctypes.create_string_buffer(16)
            linux.drop_capabilities()
            linux.read_memory(child, address, ctypes.addressof(buffer), 9)
            os._exit(0 if buffer.value == b"an output" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(sibling, 0)[1]) == 0


def test_the_worker_names_the_process_that_starts_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = tmp_path / "asked"
    plain = linux.allow_reader

    def noted(pid: int | None) -> None:
        asked.write_text(repr(pid))
        plain(pid)

    monkeypatch.setattr(linux, "allow_reader", noted)
    with sandbox(lambda says: bool(says.send(b"ready")) and spin(), tmp_path) as box:
        assert box.hear() == b"ready"
        assert asked.read_text() == str(os.getpid())


def test_an_init_process_that_is_gone_is_no_pause(tmp_path: Path):
    with sandbox(lambda says: bool(says.send(b"ready")) and os._exit(3), tmp_path) as box:
        box.hear()
        assert eventually(lambda: not linux.descendants(box.pid))

        def is_gone() -> bool:
            try:
                box.link.pause()
            except CandidateDied:
                return True
            return False

        assert eventually(is_gone)


def test_descriptors_that_a_candidate_sends_do_not_reach_its_judge():
    ours, theirs = socket.socketpair()
    channel = Channel(ours, max_fds=0)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with theirs, Path(os.devnull).open() as file:
        Channel(theirs).send({"id": 1}, [file.fileno()] * 8)
        assert channel.receive_json(1.0) == {"id": 1}
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 1
    channel.close()


def test_processes_are_found_or_it_is_said_that_they_are_not(monkeypatch: pytest.MonkeyPatch):
    def exhausted(_: Path) -> Iterator[Path]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "iterdir", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        linux.descendants(os.getpid())


def test_mounts_can_be_made_read_only_on_older_kernels_too():
    pid = os.fork()
    if pid == 0:
        linux.become_user_namespace(os.geteuid())
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("tmpfs", "/tmp", "tmpfs")
        Path("/tmp/a folder").mkdir()
        linux.mount("tmpfs", "/tmp/a folder", "tmpfs")
        linux.make_read_only_one_by_one()
        flags = [os.statvfs(path).f_flag for path in ("/", "/tmp", "/tmp/a folder")]
        os._exit(sum(not flag & os.ST_RDONLY for flag in flags))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
