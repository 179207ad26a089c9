"""`make` installs the torch that was asked for, and says so where it cannot."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import install


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that has torch and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """An index on loopback that stands for PyTorch's own."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Index)
    monkeypatch.setenv("KBOPT_CPU_TORCH_INDEX", f"http://127.0.0.1:{server.server_port}/whl/cpu")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_torch_for_the_cpu_comes_from_pytorchs_index(index: http.server.HTTPServer) -> None:
    expected = ["torch", "--extra-index-url", f"http://127.0.0.1:{index.server_port}/whl/cpu"]
    assert install.torch_arguments("cpu") == expected


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/whl/cpu", "http://127.0.0.1:{port}/nothing"])
def test_an_index_that_does_not_answer_leaves_torch_to_pip_and_says_so(
    address: str,
    index: http.server.HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = address.format(port=index.server_port)
    monkeypatch.setenv("KBOPT_CPU_TORCH_INDEX", address)
    assert install.torch_arguments("cpu") == ["torch"]
    assert f"{address} does not answer" in capsys.readouterr().out


def test_a_torch_of_ones_own_is_not_held_to_the_pinned_version(tmp_path: Path) -> None:
    pinned = (install.ROOT / "constraints.txt").read_text().splitlines()
    assert install.constraints(tmp_path, "cpu") == install.ROOT / "constraints.txt"
    for torch in ("own", "torch==2.9.1"):
        kept = install.constraints(tmp_path, torch).read_text().splitlines()
        left_out = [line.partition("==")[0] for line in pinned if line not in kept]
        assert sorted(left_out) == ["sympy", "torch"]
    assert install.torch_arguments("torch==2.9.1") == ["torch==2.9.1"]


@pytest.mark.slow
@pytest.mark.parametrize("body", ["", "raise ImportError('libcudart.so.13')"])
def test_own_torch_is_seen_in_the_environment_or_missed_at_once(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    venv = tmp_path / "venv"
    if body:
        with pytest.raises(SystemExit, match=r"TORCH=own: .* has no torch"):
            install.create(venv, own_torch=True)
    else:
        install.create(venv, own_torch=True)
    assert "include-system-site-packages = true" in (venv / "pyvenv.cfg").read_text()


def test_the_first_line_says_how_large_it_will_be() -> None:
    assert install.size("cpu", is_first=True) == install.SIZES["cpu"]
    assert install.size("own", is_first=True).endswith("with a torch of that size")
    assert install.size("own", is_first=False) == install.SIZES["tools"]


def test_the_pinned_torch_is_known_whatever_its_build(tmp_path: Path) -> None:
    assert not install.has_pinned_torch(tmp_path)
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "torch-2.9.1.dist-info").mkdir(parents=True)
    assert not install.has_pinned_torch(tmp_path)
    for build in ("", "+cpu"):
        folder = packages / f"torch-{pinned_torch()}{build}.dist-info"
        folder.mkdir()
        assert install.has_pinned_torch(tmp_path)
        folder.rmdir()


def pinned_torch() -> str:
    lines = (install.ROOT / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))
