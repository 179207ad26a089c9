"""`python -m kbopt.evaluation eval|serve`: the evaluator without the rest, for machines that hold a GPU."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from kbopt.core import codec
from kbopt.core.errors import InfraError, UserError
from kbopt.core.types import EvalProtocol, EvalRequest, Result, Task, outcome_name
from kbopt.evaluation import service
from kbopt.evaluation.client import ServiceClient

_DEFAULTS = EvalProtocol()


def main() -> int:
    """Exit codes: 0 with a verdict whatever it is, 2 for the user's mistake, 3 for the machine's."""
    arguments = _parser().parse_args()
    if arguments.command == "serve":
        service.main(arguments.device, arguments.state_dir)
        return 0
    try:
        result = asyncio.run(_evaluate(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except InfraError as error:
        print(error, file=sys.stderr)
        return 3
    if arguments.json:
        print(json.dumps(codec.encode(result)))
    else:
        print(f"{outcome_name(result.outcome)} on {result.device}\n{result.feedback}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kbopt.evaluation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "eval"):
        command = commands.add_parser(name)
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        command.add_argument(
            "--state-dir", type=Path, default=Path(tempfile.gettempdir()) / "kbopt-evaluation"
        )
    command.add_argument("--task", type=Path, required=True, help="a KernelBench problem, a .py file")
    command.add_argument("--kernel", type=Path, required=True, help="a source that defines ModelNew")
    command.add_argument("--trials", type=int, default=_DEFAULTS.trials)
    command.add_argument("--timed", type=int, default=_DEFAULTS.timed)
    command.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default=_DEFAULTS.precision)
    command.add_argument("--torch-ops", choices=("allow", "warn", "forbid"), default=_DEFAULTS.torch_ops)
    command.add_argument("--allow-tf32", action="store_true")
    command.add_argument("--timeout", type=float, default=_DEFAULTS.timeout_s, help="seconds")
    command.add_argument("--repeat", type=int, default=0)
    command.add_argument("--json", action="store_true")
    return parser


async def _evaluate(arguments: argparse.Namespace) -> Result:
    protocol = EvalProtocol(
        trials=arguments.trials,
        timed=arguments.timed,
        precision=arguments.precision,
        torch_ops=arguments.torch_ops,
        allow_tf32=arguments.allow_tf32,
        timeout_s=arguments.timeout,
    )
    task = Task(name=arguments.task.stem, source=arguments.task.read_text())
    request = EvalRequest(
        task=task, source=arguments.kernel.read_text(), protocol=protocol, repeat=arguments.repeat
    )
    client = ServiceClient(device=arguments.device, state_dir=arguments.state_dir)
    await client.open()
    try:
        return await client.evaluate(request)
    finally:
        await client.close()


if __name__ == "__main__":
    sys.exit(main())
