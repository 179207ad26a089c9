"""Run the whole suite and end with what was left out, and why.

python scripts/test.py WORKERS

What needs a GPU and what takes minutes to notice a fault have commands of their own, which the end names.
First the tests that wait for others, on WORKERS processes; then those that time kernels, one after the other,
also where the first part failed. Where a few failed, those run once more, alone: machines are shared, and a
test that passes then failed of what else the machine did. It is named at the end. Debian packages that tests
need are installed where that is allowed (root, apt-get); else the one command is named, and what needs them
is left out. The exit code is 0 unless a test failed twice, or more than a few did once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    "g++": "g++",
    "make": "make",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
}
"""Programs that tests start, and the Debian package of each."""

HEADERS = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
"""The Debian package with this Python's headers, by which torch's extensions are compiled."""
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Of the tests. They start thousands of processes, which would each compile kbopt for a fifth of a second."""
ELSEWHERE = {"gpu": "need an NVIDIA GPU: make gpu", "patient": "wait for minutes: make cluster"}
"""The markers of tests that are not run here, why, and what runs them."""
FAILED = 1
INTERRUPTED = 2
NO_TESTS = 5
MOST_AGAIN = 10
"""So many failed tests run once more. A busy machine fails one or two of four thousand; more have a cause."""


def main(workers: str) -> int:
    """Both parts of the suite in the present folder, then what failed in them; the exit code."""
    install(missing())
    parts = (
        (
            "-n",
            workers,
            "--dist",
            "loadfile",
            "--no-loadscope-reorder",
            "-m",
            "not gpu and not quiet and not patient",
            "--durations=40",
        ),
        ("-m", "quiet and not gpu", "--durations=10"),
    )
    codes, cases = [], []
    with tempfile.TemporaryDirectory() as folder:
        deselected = Path(folder) / "deselected"
        for number, options in enumerate(parts):
            code, found = pytest(Path(folder) / f"{number}.xml", *options, deselected=deselected)
            if code == INTERRUPTED:
                return code
            codes.append(code)
            cases += found
        failed = sorted({node_id(case) for case in cases if has_failed(case)})
        passed: list[str] = []
        if failed and set(codes) <= {0, FAILED} and len(failed) <= MOST_AGAIN:
            say(f"{len(failed)} failed; they run once more, alone")
            code, again = pytest(Path(folder) / "again.xml", "-m", "not gpu", *failed)
            unsure = {node_id(case) for case in again if has_failed(case) or case.find("skipped") is not None}
            passed = sorted({node_id(case) for case in again} - unsure)
            codes = [code or (FAILED if passed != failed else 0)]
        lines = deselected.read_text().splitlines() if deselected.exists() else []
        elsewhere = dict(line.split() for line in lines)
    print(summary(cases, len(failed) - len(passed), missing(), elsewhere))
    if passed:
        print("\n".join([f"passed only when run again: {len(passed)}", *(f"  {name}" for name in passed)]))
    return next(filter(None, codes), 0)


def pytest(
    report: Path, *options: str, deselected: Path | None = None
) -> tuple[int, list[ElementTree.Element]]:
    """The exit code, 0 too where no test is chosen, and what `report` holds of each test. `deselected` is
    written as scripts/deselected.py says.
    """
    counting = [str(Path(__file__).with_name("deselected.py")), str(deselected)]
    program = counting if deselected else ["-m", "pytest"]
    command = [sys.executable, *program, "-q", "--junit-xml", str(report), "-o", "junit_family=xunit1"]
    code = subprocess.run([*command, *options], check=False, env=ENVIRONMENT).returncode
    cases = ElementTree.parse(report).findall(".//testcase") if report.exists() else []
    return (0 if code == NO_TESTS else code), cases


def node_id(case: ElementTree.Element) -> str:
    """What pytest calls the test: `tests/cli/test_run.py::test_help`, or the file that cannot be imported."""
    file = case.get("file", "")
    module = file.removesuffix(".py").replace("/", ".")
    if not case.get("classname"):
        return file
    classes = case.get("classname", "").removeprefix(module).strip(".").split(".")
    return "::".join(filter(None, (file, *classes, case.get("name"))))


def has_failed(case: ElementTree.Element) -> bool:
    """In its own course or in that of a fixture."""
    return case.find("failure") is not None or case.find("error") is not None


def missing() -> list[str]:
    """The Debian packages of the programs and headers that are not here."""
    packages = [package for name, package in PACKAGES.items() if not shutil.which(name, path=SYSTEM_PATH)]
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return packages if has_headers else [*packages, HEADERS]


def install(packages: list[str]) -> None:
    """Install Debian packages where that is allowed, else say how. A failure is said; tests go on without."""
    if not packages:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        say(f"tests that need {', '.join(packages)} are left out. To run them too: {command(packages)}")
        return
    say(f"tests need {', '.join(packages)}: installing these Debian packages")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["--yes", "--quiet=2", "--no-install-recommends"]
    for arguments in (["update", "--quiet=2"], ["install", *options, *packages]):
        if subprocess.run(["apt-get", *arguments], env=environment, check=False).returncode:
            say(f"apt-get {arguments[0]} failed; tests that need these packages are left out")
            return


def command(packages: list[str]) -> str:
    """What a user types for the packages."""
    return f"sudo apt-get install {' '.join(packages)}"


def summary(
    cases: list[ElementTree.Element], failed: int, packages: list[str], elsewhere: dict[str, str]
) -> str:
    """How many tests ran, failed and were left out, with a line for each reason. `elsewhere` has how many
    with a marker were not begun.
    """
    reasons = Counter(
        (skipped.get("message") or "").removeprefix("Skipped: ")
        for case in cases
        if (skipped := case.find("skipped")) is not None
    )
    lines = [f"\n{len(cases)} tests: {failed} failed, {reasons.total()} left out"]
    lines += [f"  {count:4d}  {reason}" for reason, count in reasons.most_common()]
    lines += [f"not begun: {count} that {ELSEWHERE[marker]}" for marker, count in sorted(elsewhere.items())]
    if packages:
        lines.append(f"To run what needs packages too: {command(packages)}")
    return "\n".join(lines)


def say(line: str) -> None:
    """A line that stands before what the programs started here print."""
    print(f"make test: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
