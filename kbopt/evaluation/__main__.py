"""The evaluation service, for machines that hold a device: of one process (serve), or of a spool (drain)."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kbopt.evaluation.client import ServiceClient
from kbopt.evaluation.server import draining, serving
from kbopt.evaluation.spool.jobs import BEAT_S, TAKEOVER_S


def main() -> None:
    """Run a command: `serve` answers standard input on standard output, `drain` answers a shared folder."""
    commands = parser()
    given = commands.parse_args()
    try:
        given.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        commands.error(f"--state-dir {given.state_dir} cannot be made: {error}")
    if given.command == "serve":
        if given.cores:
            os.sched_setaffinity(0, given.cores)
        serving.main(given.device, given.state_dir, given.memory_gib)
        return
    client = ServiceClient(device=given.device, state_dir=given.state_dir, memory_gib=given.memory_gib)
    options = draining.Options(
        minutes=given.minutes,
        once=given.once,
        takeover_s=given.takeover_seconds,
        no_sandbox=given.no_sandbox,
    )
    sys.exit(draining.main(given.folder, client, options))


def parser() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    whole = argparse.ArgumentParser(prog="python -m kbopt.evaluation", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="judge what standard input asks for")
    serve.add_argument(
        "--cores", type=_cores, default=(), help="0,2,4: the processor's cores to run on; default: all"
    )
    drain = drain_options(commands.add_parser("drain", help="judge what searches ask for in a shared folder"))
    for command in (serve, drain):
        command.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N")
        command.add_argument(
            "--state-dir",
            type=Path,
            default=Path(tempfile.gettempdir()) / f"kbopt-evaluation-{os.getuid()}",
            help="where builds and baselines are kept, best on a disk of this machine",
        )
        command.add_argument(
            "--memory-gib",
            type=float,
            help="GiB of host memory that it may use; default: the container's limit or the machine's memory",
        )
    return whole


def drain_options(drain: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options that only `drain` has, and return the parser."""
    drain.add_argument(
        "folder", metavar="DIR", type=Path, help="the folder that the searches have as --spool"
    )
    drain.add_argument(
        "--minutes",
        type=_above(0.0),
        help="take nothing more after so many; what is begun is finished. Default: serve until SIGTERM",
    )
    drain.add_argument("--once", action="store_true", help="serve what is there, then end")
    drain.add_argument(
        "--takeover-seconds",
        type=_above(2 * BEAT_S),
        default=TAKEOVER_S,
        help="take over what a job has claimed that gave no sign of life for so long; default %(default)g",
    )
    drain.add_argument(
        "--no-sandbox", action="store_true", help="judge kernels even if this machine cannot isolate them"
    )
    return drain


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}: there is auto, cpu, cuda and cuda:N")
    return text


def _cores(text: str) -> tuple[int, ...]:
    allowed = os.sched_getaffinity(0)
    cores = tuple(int(part) if part.isdecimal() else -1 for part in text.split(","))
    if not set(cores) <= allowed:
        raise argparse.ArgumentTypeError(f"{text!r}: there are the cores {sorted(allowed)}")
    return cores


def _above(limit: float) -> Callable[[str], float]:
    """Return a parser of numbers above `limit`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not limit < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number above {limit:g}")
        return value

    return number


if __name__ == "__main__":
    main()
