"""`python -m kbopt.evaluation serve`: the evaluation service, for machines that hold a device."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from kbopt.evaluation import service


def main() -> None:
    """Serve standard input and output until the former ends."""
    parser = argparse.ArgumentParser(prog="python -m kbopt.evaluation", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("serve")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    command.add_argument("--state-dir", type=Path, default=Path(tempfile.gettempdir()) / "kbopt-evaluation")
    arguments = parser.parse_args()
    service.main(arguments.device, arguments.state_dir)


if __name__ == "__main__":
    main()
