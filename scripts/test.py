"""Run the whole suite and end with what was left out, and why.

python scripts/test.py WORKERS

First the tests that wait for others, on WORKERS processes; then those that time kernels, one after the other,
also where the first part failed. Debian packages that tests need are installed where that is allowed (root,
apt-get); else the one command is named, and what needs them is left out. The exit code is 0 unless a
test failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

PACKAGES = {
    "chromium": "chromium",
    "g++": "g++",
    "make": "make",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
}
"""Programs that tests start, and the Debian package of each."""

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NO_TESTS = 5
INTERRUPTED = 2


def main(workers: str) -> int:
    """Both parts of the suite in the present folder; the exit code of the first that failed."""
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
        ),
        ("-m", "quiet and not gpu"),
    )
    codes, cases = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, options in enumerate(parts):
            report = Path(folder) / f"{number}.xml"
            command = [sys.executable, "-m", "pytest", "-q", "--junit-xml", str(report), *options]
            code = subprocess.run(command, check=False).returncode
            if code == INTERRUPTED:
                return code
            codes.append(0 if code == NO_TESTS else code)
            cases += ElementTree.parse(report).findall(".//testcase") if report.exists() else []
    print(summary(cases, missing()))
    return next(filter(None, codes), 0)


def missing() -> list[str]:
    """The Debian packages of the programs that are not here."""
    return [package for program, package in PACKAGES.items() if not shutil.which(program, path=SYSTEM_PATH)]


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


def summary(cases: list[ElementTree.Element], packages: list[str]) -> str:
    """How many tests ran, failed and were left out, with a line for each reason."""
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    reasons = Counter(
        (skipped.get("message") or "").removeprefix("Skipped: ")
        for case in cases
        if (skipped := case.find("skipped")) is not None
    )
    lines = [f"\n{len(cases)} tests: {failed} failed, {reasons.total()} left out"]
    lines += [f"  {count:4d}  {reason}" for reason, count in reasons.most_common()]
    if packages:
        lines.append(f"To run what needs packages too: {command(packages)}")
    return "\n".join(lines)


def say(line: str) -> None:
    """A line that stands before what the programs started here print."""
    print(f"make test: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
