"""`python -m kbopt.evaluation serve`: the evaluation service, for machines that hold a device."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from kbopt.evaluation.server import serving


def main() -> None:
    """Serve standard input and output until the former ends."""
    parser = argparse.ArgumentParser(prog="python -m kbopt.evaluation", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("serve")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    command.add_argument("--state-dir", type=Path, default=Path(tempfile.gettempdir()) / "kbopt-evaluation")
    command.add_argument(
        "--memory-gib",
        type=float,
        help="GiB of host memory that it may use, instead of the container's limit or the machine's memory",
    )
    arguments = parser.parse_args()
    serving.main(arguments.device, arguments.state_dir, arguments.memory_gib)


if __name__ == "__main__":
    main()
