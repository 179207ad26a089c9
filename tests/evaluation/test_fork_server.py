"""What the fork server imports ahead, in processes of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kbopt.evaluation.sandbox.children import ForkServerHandle

MODULES = {
    "plain": "VALUE = 1",
    "broken": "raise ValueError('not here')",
    "threaded": """
        import threading
        import time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    """,
}


@pytest.mark.parametrize(
    ("names", "spoiler"),
    [
        (("plain", "broken", "missing"), None),
        (("plain", "threaded", "broken"), "threaded"),
        (("threaded", "plain"), "threaded"),
    ],
)
def test_the_module_that_leaves_a_thread_behind_is_named(
    names: tuple[str, ...], spoiler: str | None, tmp_path: Path
) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    code = f"from kbopt.evaluation.preloading import spoiled_by; print(spoiled_by({names!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(spoiler)


@pytest.mark.slow
def test_a_server_whose_process_was_spoiled_starts_again_without_what_did_it(tmp_path: Path) -> None:
    """`threaded` stands in for the module that every server imports ahead."""
    package = tmp_path / "torch_extension_stand_in"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import sys, threading, time
            class Finder:
                def find_spec(self, name, path=None, target=None):
                    if name == "torch.utils.cpp_extension" and "fork_server" in " ".join(sys.orig_argv):
                        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                    return None
            sys.meta_path.insert(0, Finder())
            """
        )
    )
    environ = {**os.environ, "PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"}
    server = ForkServerHandle(tmp_path, environ)
    try:
        command = Path(f"/proc/{server._process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"torch.utils.cpp_extension" in command
    finally:
        server.close()
