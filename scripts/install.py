"""Make a virtual environment with kbopt in it, and say first how large it will be.

    python3 scripts/install.py FOLDER EXTRAS TORCH

`make` calls this with the Python that the environment is to have; nothing but its standard library is needed.
EXTRAS are those of pyproject.toml, as in `all,test`. TORCH says which torch:

    (empty)   as the environment has it already; at first `cpu` where no NVIDIA GPU is in sight, else `index`
    cpu       the build without CUDA, from PyTorch's own index if that answers
    index     whatever pip's index gives; PyPI's build for Linux brings CUDA's libraries
    own       the one that this Python imports already; nothing of it is downloaded or replaced
    other     a requirement of pip's: torch==2.9.1, a wheel's path or address
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_S = 10.0
"""Seconds that PyTorch's index may take to answer before pip is left to its own index."""

TIED_TO_TORCH = ("torch", "sympy")
"""Pins that hold for the pinned torch alone: another one brings its own exact requirement of sympy."""

WITHOUT_DEPENDENCIES = ("latex2sympy2_extended", "math-verify", "renderers", "shinka-evolve", "verifiers")
"""What the adapters are tested against and cannot have all that it asks for: shinka-evolve pins httpx 0.27
and verifiers mcp 2.0, where kbopt has newer ones; math-verify and hydra-core want two versions of one parser;
renderers would bring transformers. What the tests need of their dependencies is in the extra `test`."""

SIZES = {
    "cpu": "0.5 GB to download and 1.9 GB on disk",
    "cuda": "3 GB to download and 6 GB on disk",
    "tools": "0.2 GB to download and 0.6 GB on disk",
}
"""What an installation takes, rounded; `tools` are those of tests and documentation, on top."""


def main(folder: str, extras: str, torch: str) -> None:
    """Create or complete the environment in `folder`; ends the process with a message where that fails."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"kbopt needs Python 3.11 to 3.13, {sys.executable} is {version}; set PYTHON=python3.12")
    venv, remembered = Path(folder), Path(folder, "torch.txt")
    known = remembered.read_text() if remembered.is_file() else ""
    torch = torch or known or ("index" if has_gpu() else "cpu")
    say(f"installing into {venv}: about {size(torch, is_first=not known)}, two to ten minutes")
    create(venv, own_torch=torch == "own")
    pip = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--constraint",
        str(constraints(venv, torch)),
    ]
    if torch not in ("index", "own") and not (torch == "cpu" and has_pinned_torch(venv)):
        run([*pip, *torch_arguments(torch)])
    run([*pip, "--editable", f"{ROOT}[{extras}]"])
    if "test" in extras.split(","):
        run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES])
    remembered.write_text(torch)


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA GPU."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def size(torch: str, *, is_first: bool) -> str:
    """What the installation takes; an estimate, by the pinned versions."""
    if not is_first:
        return SIZES["tools"]
    if torch not in ("cpu", "index"):
        return f"{SIZES['cpu']} with a torch of that size"
    return SIZES["cuda" if torch == "index" and has_gpu() else "cpu"]


def has_pinned_torch(venv: Path) -> bool:
    """Whether the environment has the torch of constraints.txt, of whatever build."""
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return any(venv.glob(f"lib/python*/site-packages/torch-{pinned[1]}[+-.]*dist-info")) if pinned else False


def create(venv: Path, *, own_torch: bool) -> None:
    """The environment; with `own_torch` one that sees the packages of the Python that makes it."""
    config = venv / "pyvenv.cfg"
    shared = config.is_file() and "include-system-site-packages = true" in config.read_text()
    options = ["--system-site-packages", *([] if shared else ["--clear"])] if own_torch else []
    if not config.is_file() or options:
        run([sys.executable, "-m", "venv", *options, str(venv)])
    if own_torch and subprocess.run([venv / "bin" / "python", "-c", "import torch"], check=False).returncode:
        sys.exit(
            f"TORCH=own: {sys.executable} has no torch outside a virtual environment. Name one that has by "
            "PYTHON=..., or install kbopt into your environment: pip install --editable '.[all]'"
        )


def constraints(venv: Path, torch: str) -> Path:
    """The pinned versions, without those that another torch than the pinned one may contradict."""
    if torch in ("cpu", "index"):
        return ROOT / "constraints.txt"
    tied = re.compile(rf"({'|'.join(TIED_TO_TORCH)})==")
    kept = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not tied.match(line)]
    path = venv / "constraints.txt"
    path.write_text("\n".join(kept) + "\n")
    return path


def torch_arguments(torch: str) -> list[str]:
    """What pip is told so that it installs the torch of that name."""
    if torch != "cpu":
        return [torch]
    index = os.environ.get("KBOPT_CPU_TORCH_INDEX", CPU_INDEX)
    if sys.platform != "linux":
        return ["torch"]  # there PyPI's own build is without CUDA
    if answers(f"{index}/torch/"):
        return ["torch", "--extra-index-url", index]
    say(
        f"{index} does not answer, so torch comes from pip's own index; PyPI's is the build with CUDA, "
        f"{SIZES['cuda']}. TORCH=PATH_OF_A_WHEEL is another way."
    )
    return ["torch"]


def answers(address: str) -> bool:
    """Whether a server gives that page within `PROBE_S` seconds."""
    try:
        with urllib.request.urlopen(address, timeout=PROBE_S) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def run(command: list[str]) -> None:
    """Run a command whose output the user sees; its failure is this program's."""
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(f"the installation stopped: {' '.join(command)} failed with {code}; its message is above")


def say(line: str) -> None:
    """A line that stands before what the programs started here print."""
    print(f"kbopt: {line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
